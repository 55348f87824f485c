"""A wheel serves without the checkout, and has nothing that only maintainers run."""

import ast
import importlib.metadata
import re
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
    'benchmarks',
    'dynsp_mm',
)
# What mmengine and mmcv bring, and the libraries that a user may have.
OPENMMLAB = {'mmengine', 'mmcv', 'cv2', 'matplotlib', 'mmdet', 'mmseg', 'mmpretrain'}


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


def test_nothing_of_the_maintainers_is_in_it(installed):
    own = {path.name for path in (ROOT / 'benchmarks').rglob('*') if path.suffix in ('.py', '.yml')}
    own -= {'__init__.py', '__main__.py'}
    assert {'swap_matrix.py', 'report.py', 'rows.yml', 'commands.yml'} <= own
    # A config, a tool or a module of the package may have a name that one there has.
    own -= {
        path.name for name in ('configs', 'tools', 'dynsp_mm') for path in (ROOT / name).rglob('*')
    }
    assert len(own) > 10
    paths = [path.relative_to(installed) for path in installed.rglob('*')]
    assert not [path for path in paths if path.name in own or 'benchmarks' in path.parts]
    assert not [path for path in paths if path.suffix in ('.json', '.csv', '.png')]


def imported_modules(folder):
    """Top-level modules that the files of a folder import, anywhere in them."""
    found = set()
    for path in (ROOT / folder).rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.split('.')[0])
    return found - set(sys.stdlib_module_names) - {'dynsp_mm', 'benchmarks'}


def test_what_it_needs_is_declared(installed):
    (folder,) = installed.glob('*.dist-info')
    metadata = importlib.metadata.PathDistribution(folder).metadata
    needed = {}
    for requirement in metadata.get_all('Requires-Dist'):
        match = re.match(r"""([\w-]+)[^;]*(?:; extra == ["'](\w+)["'])?""", requirement)
        name, extra = match.groups()
        needed.setdefault(extra, set()).add(name)
    assert set(metadata.get_all('Provides-Extra')) == {'data', 'bench', 'dev'}
    assert needed['dev'] >= {'pytest', 'pytest-xdist', 'ruff', 'pre-commit'}
    # Triton comes with torch, on the systems that it runs on.
    package = imported_modules('dynsp_mm') | imported_modules('tools')
    assert package - OPENMMLAB - {'triton'} <= needed[None] | needed['data']
    assert imported_modules('benchmarks') - OPENMMLAB - needed[None] <= needed['bench']


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
flat = Config.fromfile(dynsp_mm.config('maskrcnn_dyswin_t.py'))
assert flat.model.backbone.keep_ratios == 0.7
foldered = Config.fromfile(dynsp_mm.config('dynamic_swin/maskrcnn_dyswin_t.py'))
assert foldered.to_dict() == flat.to_dict()
cfg = Config.fromfile('mine.py')
init_default_scope(cfg.default_scope)
print(type(MODELS.build(cfg.model).backbone).__module__)
"""
    environment = dict(PYTHONPATH=str(installed), PATH='')
    assert run('-c', code, cwd=tmp_path, env=environment).split()[-1].startswith('dynsp_mm.')
    tool = installed / 'dynsp_mm/.mim/tools/sparsify_config.py'
    printed = run(tool, 'dynsp_mm::maskrcnn_dyswin_s.py', '0.5', cwd=tmp_path, env=environment)
    assert "config('maskrcnn_dyswin_s.py')" in printed and 'keep_ratios=0.5' in printed
