"""A wheel serves without the checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = (
    'setup.py',
    'pyproject.toml',
    'MANIFEST.in',
    'README.md',
    'CHANGELOG.md',
    'LICENSE',
    'model-index.yml',
    'configs',
    'tools',
    'dynsp_mm',
)


def run(*command, **kwargs):
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, **kwargs
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """Folder with the unpacked wheel, which was built from a source distribution."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__', '.mim')
            )
        else:
            shutil.copy(ROOT / name, source)
    build = 'from setuptools.build_meta import build_sdist; print(build_sdist({!r}))'
    run('-c', build.format(str(folder)), cwd=source)
    (sdist,) = folder.glob('*.tar.gz')
    run('-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', folder, sdist)
    (wheel,) = folder.glob('*.whl')
    target = folder / 'site'
    zipfile.ZipFile(wheel).extractall(target)
    return target


def test_it_carries_configs_tools_and_index(installed):
    mim = installed / 'dynsp_mm/.mim'
    for name in ('configs', 'tools'):
        expected = {
            path.relative_to(ROOT)
            for path in (ROOT / name).rglob('*')
            if path.is_file()
            and path.suffix != '.pyc'
            and path.name not in ('install.sh', 'try_original_stack.sh')
        }
        got = {path.relative_to(mim) for path in (mim / name).rglob('*') if path.is_file()}
        assert got == expected and expected
    assert (mim / 'model-index.yml').read_text() == (ROOT / 'model-index.yml').read_text()
    top = {path.name for path in installed.iterdir()}
    assert {name for name in top if not name.endswith('.dist-info')} == {'dynsp_mm'}


def test_it_runs_elsewhere(installed, tmp_path):
    """Its configs serve as bases, in a config file and by name; the tools run."""
    (tmp_path / 'mine.py').write_text(
        "_base_ = [__import__('dynsp_mm').config('maskrcnn_dyswin_t.py')]\n"
        'model = dict(backbone=dict(keep_ratios=0.6, init_cfg=None))\n'
    )
    code = f"""
import dynsp_mm
assert dynsp_mm.__file__.startswith({str(installed)!r}), dynsp_mm.__file__
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
import mmdet.models
assert Config.fromfile(dynsp_mm.config('maskrcnn_dyswin_t.py')).model.backbone.keep_ratios == 0.7
cfg = Config.fromfile('mine.py')
init_default_scope(cfg.default_scope)
print(type(MODELS.build(cfg.model).backbone).__module__)
"""
    environment = dict(PYTHONPATH=str(installed), PATH='')
    assert run('-c', code, cwd=tmp_path, env=environment).split()[-1].startswith('dynsp_mm.')
    tool = installed / 'dynsp_mm/.mim/tools/sparsify_config.py'
    printed = run(tool, 'dynsp_mm::maskrcnn_dyswin_s.py', '0.5', cwd=tmp_path, env=environment)
    assert "config('maskrcnn_dyswin_s.py')" in printed and 'keep_ratios=0.5' in printed
