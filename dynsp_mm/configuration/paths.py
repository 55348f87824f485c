"""Where the configs of this package and of the libraries lie."""

import importlib.util
from pathlib import Path

from ..errors import UserError

PACKAGE = 'dynsp_mm'
LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')


def config(name: str) -> str:
    """Absolute path of a config of this package or of a library, for ``_base_`` above all.

    A config file may say ``_base_ = __import__('dynsp_mm').config('maskrcnn_dyswin_t.py')``, alone
    or in a list with other bases, and every program of OpenMMLab reads it. Nothing is installed on
    the way, and it is of no importance by which distribution a library came.

    Args:
        name: Path below the folder of configs, such as 'maskrcnn_dyswin_t.py'; for a library, the
            library and the path, such as 'mmseg::convnext/convnext-tiny_upernet_...py'.

    Raises:
        UserError: The package before the ``::`` is unknown or not installed.
        FileNotFoundError: It has no config of this name.
    """
    package, external, path = str(name).rpartition('::')
    package = package if external else PACKAGE
    if package not in (*LIBRARIES, PACKAGE):
        raise UserError(
            f'{name}: configs come from {", ".join(LIBRARIES)} and {PACKAGE}; got {package!r}'
        )
    if package != PACKAGE and '/' not in path:
        raise UserError(
            f'{name}: a config of {package} is named with its folder, such as '
            'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        )
    if Path(path).is_absolute() or '..' in Path(path).parts:
        raise UserError(f'{name}: must be a path below the folder of configs')
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise UserError(f'{name}: package {package} is not installed')
    for folder in map(Path, spec.submodule_search_locations):
        # In a wheel or an editable install, in a checkout that is not installed, and those in
        # python style, which libraries import.
        for configs in (folder / '.mim/configs', folder.parent / 'configs', folder / 'configs'):
            if (configs / path).is_file():
                return str(configs / path)
    raise FileNotFoundError(f'{package} has no config {path!r}')
