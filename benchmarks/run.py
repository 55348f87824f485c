#!/usr/bin/env python
"""Measures results of benchmarks/speed/; ``--help`` says how."""

import sys
from pathlib import Path

if __name__ == '__main__':
    # The root of the checkout, which then serves without being installed.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from benchmarks.speed.run import main
    from dynsp_mm.tooling import runs

    runs.run_tool(main)
