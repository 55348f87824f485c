"""Packaging of dynsp_mm; the metadata stands in pyproject.toml.

Wheels carry configs, tools and the model index in ``dynsp_mm/.mim``, where OpenMMLab's programs
look for them; an editable install gets links there. What only maintainers run lies in
``benchmarks/``, which no wheel has.
"""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ('configs', 'tools', 'model-index.yml')
UNSHIPPED = ('install.sh', 'try_original_stack.sh')  # they serve the checkout


class BuildWithConfigs(build_py):
    """Adds what stands beside the package."""

    def run(self):
        super().run()
        if self.editable_mode:
            folder = ROOT / 'dynsp_mm/.mim'
            folder.mkdir(exist_ok=True)
            for name in SHIPPED:
                if not (folder / name).is_symlink():
                    (folder / name).symlink_to(os.path.relpath(ROOT / name, folder))
            return
        folder = Path(self.build_lib, 'dynsp_mm/.mim')
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in SHIPPED:
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name,
                    folder / name,
                    ignore=shutil.ignore_patterns('__pycache__', *UNSHIPPED),
                )
            else:
                shutil.copy2(ROOT / name, folder / name)


setup(cmdclass=dict(build_py=BuildWithConfigs))
