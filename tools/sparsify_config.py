#!/usr/bin/env python
"""Print a config with its backbone swapped for the sparse counterpart.

The program is dynsp_mm/tooling/commands/sparsify.py.
"""

import sys
from pathlib import Path

# The checkout serves without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynsp_mm.tooling.commands.sparsify import main
from dynsp_mm.tooling.runs import run_tool

if __name__ == '__main__':
    run_tool(main)
