"""What a measurement depends on: hardware, versions, the state of the code."""
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

import torch

from ..version import __version__

PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')


def hardware(device: torch.device) -> Dict[str, Any]:
    """``cpu`` (model), ``cores`` (logical), ``threads`` of torch, ``accelerator`` (None: CPU)."""
    accelerator = None
    if device.type != 'cpu':
        accelerator = getattr(torch, device.type).get_device_name(device)
    return dict(cpu=cpu_name(), cores=os.cpu_count(), threads=torch.get_num_threads(),
                accelerator=accelerator)


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


def versions(packages: Sequence[str] = PACKAGES) -> Dict[str, str]:
    """Name -> version of python, of those ``packages`` (modules) that are installed, in order."""
    # mmcv, for instance, may come from a distribution of another name.
    distributions = importlib.metadata.packages_distributions()
    found = dict(python=sys.version.split()[0])
    for name in packages:
        try:
            found[name] = importlib.metadata.version(distributions.get(name, [name])[0])
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def own_version() -> Dict[str, Optional[str]]:
    """``version`` of this package and git ``commit`` of its checkout.

    The commit ends in '-dirty' where tracked files differ from it; None outside a checkout.
    """
    def git(*args: str) -> Optional[str]:
        try:
            done = subprocess.run(['git', '-C', str(Path(__file__).parent), *args],
                                  capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # Installed below another project's checkout, this file is not part of that.
    tracked = git('ls-files', '--error-unmatch', __file__) is not None
    commit = git('describe', '--always', '--dirty', '--abbrev=40', '--exclude=*')
    return dict(version=__version__, commit=commit if tracked else None)
