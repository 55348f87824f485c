#!/usr/bin/env python
"""Plot JSON files of benchmark.py.

The program is dynsp_mm/tooling/commands/plot.py.
"""

import sys
from pathlib import Path

# The checkout serves without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dynsp_mm.tooling.commands.plot import main
from dynsp_mm.tooling.runs import run_tool

if __name__ == '__main__':
    run_tool(main)
