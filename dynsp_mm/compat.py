"""The one place that knows about library versions."""

import importlib.metadata
import importlib.util
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.modules.module as all_modules
from mmengine import device
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import hub
from torch.utils._python_dispatch import _get_current_dispatch_mode

PACKAGE = Path(__file__).parent


def enable_mmseg_base_configs():
    """Make ``mmseg::`` config paths load when mmseg comes under another distribution name.

    mmengine translates the module ``mmseg`` to the distribution ``mmsegmentation``. Where mmseg
    was installed as something else (onedl-mmsegmentation), ``_base_ = 'mmseg::...'`` then fails,
    and ``mmengine.hub.get_config`` runs ``pip install mmsegmentation`` over the working package.
    mmengine falls back to the module of the given name, so naming the module itself cures both.

    Changes nothing where mmsegmentation is installed or mmseg is missing. Safe to call again.
    """
    if importlib.util.find_spec('mmseg') is None:
        return
    try:
        importlib.metadata.distribution('mmsegmentation')
    except importlib.metadata.PackageNotFoundError:
        MODULE2PACKAGE['mmseg'] = 'mmseg'


def own_config(name):
    """Path of a config of this package, such as 'maskrcnn_dyswin_t.py'.

    Raises:
        FileNotFoundError: There is none of this name.
    """
    # In a wheel or an editable install, and in a checkout that is not installed.
    for folder in (PACKAGE / '.mim/configs', PACKAGE.parent / 'configs'):
        path = folder / name
        if path.is_file():
            return str(path)
    raise FileNotFoundError(f'{PACKAGE.name} has no config {name!r}')


def enable_own_base_configs():
    """Make ``_base_ = 'dynsp_mm::maskrcnn_dyswin_t.py'`` and ``hub.get_config`` of it work.

    A row in mmengine's table of packages is not enough: mmengine wants a folder before the name,
    which flat configs have not, and would look up every type of such a base in registries of this
    package alone, so that those of mmdet, mmseg and mmpretrain were unknown. Here such a
    base means the same as the path of its file does. Safe to call again.
    """
    name = PACKAGE.name
    if name in MODULE2PACKAGE:
        return
    MODULE2PACKAGE[name] = name
    get_path, split = Config._get_cfg_path, hub._get_package_and_cfg_path

    def get_path_or_own(cfg_path, filename):
        package, _, path = cfg_path.partition('::')
        return (own_config(path), None) if package == name else get_path(cfg_path, filename)

    def split_or_own(cfg_path):
        package, _, path = cfg_path.partition('::')
        return (package, path) if package == name else split(cfg_path)

    Config._get_cfg_path = staticmethod(get_path_or_own)
    hub._get_package_and_cfg_path = split_or_own


def math_attention():
    """Context manager under which scaled_dot_product_attention runs its plain-math backend.

    FLOP counters see the matrix products only there; the fused CPU kernel counts as nothing.
    """
    try:  # torch >= 2.3
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        return torch.backends.cuda.sdp_kernel(
            enable_flash=False, enable_math=True, enable_mem_efficient=False
        )
    return sdpa_kernel(SDPBackend.MATH)


def is_autocast_on(device_type):
    """Whether operators on 'cpu' or 'cuda' choose their precision themselves here."""
    try:
        return torch.is_autocast_enabled(device_type)
    except TypeError:  # torch < 2.4
        return (
            torch.is_autocast_cpu_enabled() if device_type == 'cpu' else torch.is_autocast_enabled()
        )


def is_compiling():
    """Whether torch.compile or torch.jit.trace is tracing."""
    if torch.jit.is_tracing():
        return True
    compiler = getattr(torch, 'compiler', None)
    if hasattr(compiler, 'is_compiling'):
        return compiler.is_compiling()
    from torch import _dynamo  # torch 2.1

    return _dynamo.is_compiling()


def is_tracing():
    """Whether operators do not run now as they are: compiled, exported, or under a mode.

    Modes are those of ``torch.utils._python_dispatch``, fake tensors above all.
    """
    return is_compiling() or _get_current_dispatch_mode() is not None


def loading_also(types):
    """Context manager in which ``torch.load(weights_only=True)`` also takes these types.

    Before torch 2.5 it cannot, and files that hold such objects are refused.
    """
    safe_globals = getattr(torch.serialization, 'safe_globals', None)
    return nullcontext() if safe_globals is None else safe_globals(types)


def has_accelerator():
    """Whether mmengine sees a device on which AmpOptimWrapper and its launchers can run."""
    # Not every 0.10.x release knows all of these vendors.
    checks = ('is_cuda_available', 'is_npu_available', 'is_mlu_available', 'is_musa_available')
    return any(getattr(device, check, bool)() for check in checks)


def is_watched(module):
    """Whether hooks see what goes into a module or comes out of it."""
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or all_modules._global_forward_pre_hooks
        or all_modules._global_forward_hooks
    )
