#!/usr/bin/env bash
# Creates .venv with the pinned stack: torch, mmcv with compiled operators,
# mmdet, mmseg, mmpretrain, and this package in editable mode. Run by
# `make demo` and `make test`; safe to run again, reuses what is there.
#
# PYTHON=/path/to/python3.11  picks the interpreter (3.10 to 3.12).
# MAX_JOBS=4                  limits the compiler processes.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=$PWD/.venv
STAMP=$VENV/.dynsp_mm_installed
LOG=$VENV/install.log
DEBIAN_PACKAGES="python3 python3-venv python3-dev make g++"

say() { printf '[install] %s\n' "$*"; }
die() { printf 'ERROR: %s\n' "$*" >&2; exit 1; }

# Prints what keeps interpreter $1 from serving; nothing when it serves.
python_problem() {
  "$1" - 2>/dev/null <<'PY' || echo "'$1' does not run"
import importlib.util, os, sys, sysconfig
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    print(f'{sys.executable} is python {sys.version.split()[0]}, wanted 3.10 to 3.12')
elif any(importlib.util.find_spec(m) is None for m in ('venv', 'ensurepip')):
    print(f'{sys.executable} lacks the venv module')
elif not os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')):
    print(f'{sys.executable} lacks its headers (Python.h)')
PY
}

find_python() {
  local problems="" candidate problem
  for candidate in ${PYTHON:-python3.12 python3.11 python3.10 python3}; do
    command -v "$candidate" >/dev/null || { problems+="; no '$candidate'"; continue; }
    problem=$(python_problem "$candidate")
    if [ -z "$problem" ]; then PY=$candidate; return; fi
    problems+="; $problem"
  done
  die "no usable python 3.10 to 3.12 with venv and headers (${problems#; }). Install: apt-get install $DEBIAN_PACKAGES"
}

check_compiler() {
  local tool
  for tool in make "${CXX:-g++}"; do
    command -v "$tool" >/dev/null ||
      die "'$tool' is missing; mmcv's operators are compiled with it. Install: apt-get install $DEBIAN_PACKAGES"
  done
}

# An mmcv without operators imports well and fails in the first training step,
# so one is run here.
mmcv_works() {
  "$VENV/bin/python" - >>"$LOG" 2>&1 <<'PY'
import torch
from mmcv.ops import RoIAlign, nms
boxes = torch.tensor([[0., 0., 8., 8.], [0., 0., 8., 7.], [20., 20., 30., 30.]])
assert nms(boxes, torch.tensor([.9, .8, .7]), 0.5)[1].tolist() == [0, 2]
assert RoIAlign(2)(torch.ones(1, 1, 32, 32), torch.tensor([[0., 0., 0., 8., 8.]])).shape == (1, 1, 2, 2)
PY
}

stack_works() {
  mmcv_works && "$VENV/bin/python" -c 'import mmengine, mmdet, mmseg, mmpretrain, dynsp_mm' >>"$LOG" 2>&1
}

# Runs a long command with its output in the log, and says now and then that it works and how
# far the compiler is.
with_progress() {
  local label=$1 start=$SECONDS from pid done_files
  shift
  from=$(($(wc -c <"$LOG") + 1))
  "$@" >>"$LOG" 2>&1 &
  pid=$!
  trap 'kill "$pid" 2>/dev/null || true' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    for _ in $(seq 20); do kill -0 "$pid" 2>/dev/null && sleep 1; done
    done_files=$(tail -c +"$from" "$LOG" | grep -aoE '\[[0-9]+/[0-9]+\]' | tail -n 1 || true)
    kill -0 "$pid" 2>/dev/null && say "$label: ${done_files:-working} after $((SECONDS - start)) s"
  done
  trap - INT TERM
  wait "$pid"
}

PIP=("$VENV/bin/python" -m pip --disable-pip-version-check)
requirement() { grep "^$1==" requirements/openmmlab.txt; }

install_mmcv() {
  # -v makes pip pass on the compiler's "[12/118]" lines.
  MMCV_WITH_OPS=1 MAX_JOBS="${MAX_JOBS:-$(nproc)}" with_progress "compiling mmcv's operators" \
    "${PIP[@]}" install -v --no-deps --no-build-isolation "$@" "$(requirement onedl-mmcv)" ||
    { tail -n 30 "$LOG" >&2; die "mmcv did not build; the whole output is in $LOG"; }
}

check_compiler
find_python
fingerprint=$(cat requirements/*.txt setup.py pyproject.toml tools/install.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat "$STAMP" 2>/dev/null)" = "$fingerprint" ]; then
  if stack_works; then say "using the environment in $VENV"; exit 0; fi
  say "the environment in $VENV no longer works; repairing it"
fi
if [ -e "$VENV" ] && [ -n "$(python_problem "$VENV/bin/python")" ]; then
  say "the interpreter of $VENV no longer serves; making the environment anew"
  rm -rf "$VENV"
fi

say "creating $VENV with $("$PY" --version) (about 6 GB of disk; 10 to 20 minutes the first time on 2 cores)"
[ -x "$VENV/bin/python" ] || "$PY" -m venv "$VENV"
: >"$LOG"
"$VENV/bin/python" -m pip install -q --upgrade 'pip>=25,<27' 2>>"$LOG" || die "pip cannot reach a package index; see $LOG"
say "downloading and installing torch and the libraries (1 of 4)"
with_progress "torch and the libraries" "${PIP[@]}" install --no-deps -r requirements/lock.txt ||
  { tail -n 20 "$LOG" >&2; die "the libraries were not installed; see $LOG"; }

if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU && ! command -v nvcc >/dev/null; then
  say "WARNING: a GPU is here but no CUDA compiler (nvcc): mmcv's operators are built for the CPU alone. Install the CUDA toolkit that 'torch.version.cuda' names, delete .venv and run again to train on the GPU."
  export CUDA_VISIBLE_DEVICES=
fi
say "mmengine and mmcv; without a cached build mmcv takes about 10 minutes on 2 cores (2 of 4)"
"${PIP[@]}" install -q --no-deps "$(requirement onedl-mmengine)" 2>>"$LOG"
install_mmcv
if ! mmcv_works; then
  say "this mmcv has no working operators; installing it again"
  "${PIP[@]}" uninstall -q -y mmcv mmcv-lite mmcv-full >>"$LOG" 2>&1 || true
  install_mmcv --force-reinstall
fi
if ! mmcv_works; then
  # pip caches what it built, also where torch was missing and the operators were left out.
  say "the cached build has no operators either; compiling it anew"
  "${PIP[@]}" cache remove onedl_mmcv >>"$LOG" 2>&1 || true
  install_mmcv --force-reinstall
  mmcv_works || { tail -n 20 "$LOG" >&2; die "mmcv's operators still do not run; see $LOG"; }
fi

say "mmdet, mmseg, mmpretrain (3 of 4)"
"${PIP[@]}" install -q --no-deps --no-build-isolation \
  "$(requirement onedl-mmdetection)" "$(requirement onedl-mmsegmentation)" "$(requirement onedl-mmpretrain)" 2>>"$LOG" ||
  { tail -n 20 "$LOG" >&2; die "mmdet, mmseg or mmpretrain did not install; see $LOG"; }
say "dynsp_mm, editable (4 of 4)"
"${PIP[@]}" install -q --no-deps --no-build-isolation -e . 2>>"$LOG" || { tail -n 20 "$LOG" >&2; die "dynsp_mm did not install; see $LOG"; }
stack_works || { tail -n 20 "$LOG" >&2; die "the installed stack does not import; see $LOG"; }
printf '%s\n' "$fingerprint" >"$STAMP"
say "done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
