#!/usr/bin/env python
"""Make a small synthetic instance-segmentation data set.

The program is dynsp_mm/tooling/commands/demo_data.py.
"""

import sys
from pathlib import Path

# The checkout serves without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynsp_mm.tooling.commands.demo_data import main
from dynsp_mm.tooling.runs import run_tool

if __name__ == '__main__':
    run_tool(main)
