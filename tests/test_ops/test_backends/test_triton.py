"""Runs the kernels' tests in processes of their own.

Whether Triton interprets kernels is settled for a whole process when it is imported.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dynsp_mm.ops.backends.triton.backend import has_interpreter

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec('triton') is None, reason='triton is not installed'
)


def run(name, interpret):
    """Runs a file beside this one with pytest; each of its tests has to pass, none be skipped."""
    environment = {key: value for key, value in os.environ.items() if key != 'TRITON_INTERPRET'}
    if interpret:
        environment['TRITON_INTERPRET'] = '1'
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'pytest',
            '-q',
            '-p',
            'no:cacheprovider',
            # Of the interpreter itself, about numpy.
            '-W',
            'ignore:Conversion of an array:DeprecationWarning',
            Path(__file__).with_name(name),
        ],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.fullmatch(r'\d+ passed in .*', done.stdout.splitlines()[-1]), done.stdout[-2000:]


@pytest.mark.skipif(not has_interpreter(), reason='this triton has no interpreter')
def test_in_the_interpreter():
    run('triton_cases.py', interpret=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA device')
def test_on_the_gpu():
    run('triton_cases.py', interpret=False)


@pytest.mark.skipif(not has_interpreter(), reason='this triton compiles only where a GPU is')
def test_compiles_without_a_gpu():
    run('triton_compiles.py', interpret=False)
