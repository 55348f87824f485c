#!/usr/bin/env python
"""Train a model of mmdet, mmseg or mmpretrain from a config.

The program is dynsp_mm/tooling/commands/train.py.
"""

import sys
from pathlib import Path

# The checkout serves without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynsp_mm.tooling.commands.train import main
from dynsp_mm.tooling.runs import run_tool

if __name__ == '__main__':
    run_tool(main)
