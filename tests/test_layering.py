"""Imports point downwards only (the order in ``LAYERS``)."""

import ast
import subprocess
import sys
from pathlib import Path

import dynsp_mm

PACKAGE = Path(dynsp_mm.__file__).parent
LIBRARIES = {'mmdet', 'mmseg', 'mmpretrain'}
# A module imports from earlier groups or its own.
LAYERS = [
    'version',
    'errors',
    'files',
    'compat',
    'families',
    'ops',
    'prepared',
    'layers',
    'sparsity',
    'checkpoints',
    'recording',
    'backbones',
    'configuration',
    'visualization',
    'training',
    'deploy',
    'analysis',
    'tooling',
    '__main__',
    '__init__',
]


def imports(path):
    """(absolute module names, names of groups of this package) that a file imports."""
    outside, inside = set(), set()
    depth = len(path.relative_to(PACKAGE).parts) - 1
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            outside |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                outside.add(node.module)
            elif node.level == depth + 1:
                inside |= (
                    {node.module.split('.')[0]}
                    if node.module
                    else {alias.name for alias in node.names}
                )
    return outside, inside


def test_imports_point_downwards():
    for path in PACKAGE.rglob('*.py'):
        group = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
        outside, inside = imports(path)
        assert not {name.split('.')[0] for name in outside} & (LIBRARIES | {'dynsp_mm'}), path
        for other in inside:
            assert LAYERS.index(other) <= LAYERS.index(group), f'{path} imports {other}'
        if group == 'ops':
            assert not any(name.split('.')[0].startswith('mm') for name in outside), path
        if path.parent != PACKAGE / 'ops/backends/triton':
            assert not any(name.split('.')[0] == 'triton' for name in outside), path


def module_of(path):
    parts = ('dynsp_mm', *path.relative_to(PACKAGE).with_suffix('').parts)
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imported_modules(path, modules):
    """Modules of this package whose names a file imports, in functions too."""
    package = module_of(path).split('.')
    package = package if path.name == '__init__.py' else package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *filter(None, [node.module])]
            for alias in node.names:
                deeper = '.'.join([*base, alias.name])
                yield deeper if deeper in modules else '.'.join(base)


def test_imports_have_no_circle():
    paths = {module_of(path): path for path in PACKAGE.rglob('*.py')}
    left = {name: set(imported_modules(path, paths)) for name, path in paths.items()}
    while left:  # takes away what imports nothing that is left
        free = [name for name, others in left.items() if not others & set(left)]
        assert free, f'these import each other: {sorted(left)}'
        for name in free:
            del left[name]


def test_importing_the_package_imports_no_task_library_and_needs_no_triton():
    # With None in its place, importing triton fails as where it is not installed.
    code = (
        'import sys; sys.modules["triton"] = None; import dynsp_mm; '
        f'print([m for m in {sorted(LIBRARIES)!r} if m in sys.modules])'
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == '[]'
