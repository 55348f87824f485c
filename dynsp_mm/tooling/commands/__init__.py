"""Commands of ``python -m dynsp_mm``: one module each, with ``main(argv=None)``."""
