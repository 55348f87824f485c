import pytest


@pytest.fixture
def write(tmp_path):
    """Write a config file and return its path."""

    def write(text, name='net.py'):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write
