#!/usr/bin/env bash
# Installs the last packages under OpenMMLab's original names (requirements/original.txt: mmcv 2.1.0,
# mmdet 3.3.0, mmsegmentation 1.2.2, mmpretrain 1.2.0, torch 2.1.2) and this package into an
# environment of their own, and runs the test suite there. mmcv is compiled: 10 minutes on 2 cores.
#
#     tools/try_original_stack.sh                      # environment in .venv-original, all tests
#     tools/try_original_stack.sh -m 'not slow'        # arguments go to pytest
#     VENV=/elsewhere PYTHON=python3.10 tools/try_original_stack.sh
#
# Safe to run again: what is installed is reused.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-$PWD/.venv-original}
PYTHON=${PYTHON:-python3.10}
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null ||
  { echo "ERROR: PYTHON=$PYTHON is no python 3.10, which these packages need" >&2; exit 1; }

PIP=("$VENV/bin/python" -m pip --disable-pip-version-check)
requirement() { grep "^$1==" requirements/original.txt; }
works() {
  "$VENV/bin/python" -c '
import torch
from mmcv.ops import RoIAlign, nms
boxes = torch.tensor([[0., 0., 8., 8.], [0., 0., 8., 7.], [20., 20., 30., 30.]])
assert nms(boxes, torch.tensor([.9, .8, .7]), 0.5)[1].tolist() == [0, 2]
import mmdet, mmseg, mmpretrain, dynsp_mm' 2>/dev/null
}

if ! works; then
  [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
  # mmcv 2.1 does not build under a current setuptools.
  "${PIP[@]}" install -q 'setuptools<70' wheel ninja psutil
  "${PIP[@]}" install -q "$(requirement torch)" "$(requirement torchvision)" "$(requirement numpy)" \
    "$(requirement opencv-python-headless)"
  MMCV_WITH_OPS=1 MAX_JOBS="${MAX_JOBS:-$(nproc)}" \
    "${PIP[@]}" install -v --no-deps --no-build-isolation "$(requirement mmcv)" >"$VENV/mmcv.log" 2>&1 ||
    { tail -n 30 "$VENV/mmcv.log" >&2; echo "ERROR: mmcv did not build; see $VENV/mmcv.log" >&2; exit 1; }
  "${PIP[@]}" install -q --no-build-isolation -r requirements/original.txt
  "${PIP[@]}" install -q --no-deps --no-build-isolation -e .
  works || { echo "ERROR: the installed packages do not import or mmcv has no operators" >&2; exit 1; }
fi
"${PIP[@]}" list 2>/dev/null | grep -iE '^(torch|torchvision|numpy|mm[a-z]+|timm) ' || true
OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE} exec "$VENV/bin/python" -m pytest -p no:cacheprovider "$@"
