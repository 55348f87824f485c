#!/usr/bin/env python
"""Train, test and draw on a small generated set: `make demo`.

The program is dynsp_mm/tooling/commands/demo.py.
"""

import argparse
import sys
from pathlib import Path

# The checkout serves without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynsp_mm.tooling.commands.demo import main

if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__).parse_args()
    main(Path(__file__).resolve().parents[1])
