#!/usr/bin/env python
"""Count multiply-adds and memory of a config's backbone.

The program is dynsp_mm/tooling/commands/flops.py.
"""

import sys
from pathlib import Path

# The checkout serves without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dynsp_mm.tooling.commands.flops import main
from dynsp_mm.tooling.runs import run_tool

if __name__ == '__main__':
    run_tool(main)
