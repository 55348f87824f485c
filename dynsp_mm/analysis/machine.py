"""What a measurement depends on: hardware, versions, the state of the code."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..version import __version__

DTYPES = dict(float32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)
PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
# What measurements and their pages write, below the root of the checkout.
RECORDED = (
    'docs/**',
    'benchmarks/**/*.json',
    'benchmarks/**/*.csv',
    'benchmarks/**/*.png',
    'benchmarks/SWAP_MATRIX.md',
)
SPEED_VARIABLES = (
    'OMP_NUM_THREADS',
    'OMP_WAIT_POLICY',
    'MKL_NUM_THREADS',
    'GLIBC_TUNABLES',
    'PYTORCH_ALLOC_CONF',
    'PYTORCH_CUDA_ALLOC_CONF',
    'TRITON_INTERPRET',
)


def hardware(device: torch.device) -> dict[str, Any]:
    """Names and numbers of what computes.

    Args:
        device: Device of a measurement.

    Returns:
        ``cpu`` (model), ``cores`` (logical), ``threads`` of torch and ``accelerator`` (None on a
        CPU).
    """
    accelerator = None
    if device.type != 'cpu':
        accelerator = getattr(torch, device.type).get_device_name(device)
    return dict(
        cpu=cpu_name(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        accelerator=accelerator,
    )


def circumstances(device: torch.device) -> dict[str, Any]:
    """What a file of measurements says first: when, by which command, on what, with what."""
    return dict(
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        command=shlex.join(sys.argv),
        environment=environment(),
        hardware=hardware(device),
        versions=versions(),
        dynsp_mm=own_version(),
    )


def environment() -> dict[str, str]:
    """The environment variables that change the speed of what runs, those that are set."""
    return {name: os.environ[name] for name in SPEED_VARIABLES if name in os.environ}


def find_device(name: str) -> torch.device:
    """The device of that name, such as 'cpu' or 'cuda:1'.

    Raises:
        UserError: If it is not there, or torch does not count its memory.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (AssertionError, ImportError, NotImplementedError, RuntimeError) as error:
        raise UserError(f'device {name!r} is not available: {first_line(error)}') from error
    if device.type != 'cpu' and not hasattr(
        getattr(torch, device.type, None), 'max_memory_allocated'
    ):
        raise UserError(
            f'device {name!r}: must be cpu or an accelerator whose memory torch '
            'counts, such as cuda'
        )
    return device


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Raises UserError where a device does not compute convolutions and products in a dtype."""
    try:
        image = torch.zeros(1, 1, 2, 2, device=device, dtype=dtype)
        torch.nn.functional.conv2d(image, image) @ image[..., :1, :]
    except RuntimeError as error:
        raise UserError(f'{dtype} does not work on {device}: {first_line(error)}') from error


def first_line(error: Exception) -> str:
    """First line of an error's text; the name of its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def cpu_name() -> str:
    """Model of the CPU; where the system does not say, its architecture."""
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            key, _, value = line.partition(':')
            if key.strip() == 'model name' and value.strip():
                return value.strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Name -> version of python, of those ``packages`` (modules) that are installed, in order."""
    # mmcv, for instance, may come from a distribution of another name.
    distributions = importlib.metadata.packages_distributions()
    found = dict(python=sys.version.split()[0])
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(distributions.get(name, [name])[0])
    return found


def own_version() -> dict[str, str | None]:
    """``version`` of this package and git ``commit`` of its checkout.

    The commit ends in '-dirty' where tracked files differ from it, other than those that
    measurements and their pages write (``RECORDED``); None outside a checkout.
    """

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ['git', '-C', str(Path(__file__).parent), *args], capture_output=True, text=True
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # Installed below another project's checkout, this file does not belong to it.
    tracked = git('ls-files', '--error-unmatch', __file__) is not None
    commit = git('rev-parse', 'HEAD') if tracked else None
    if commit and git(
        'diff',
        '--name-only',
        'HEAD',
        '--',
        ':(top)',
        *(f':(top,exclude,glob){path}' for path in RECORDED),
    ):
        commit += '-dirty'
    return dict(version=__version__, commit=commit)
