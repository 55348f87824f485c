"""The one place that knows about library versions."""

import importlib.metadata
import importlib.util
from contextlib import nullcontext
from math import prod

import torch
import torch.nn.modules.module as all_modules
from mmengine import device
from mmengine.analysis.complexity_analysis import _DEFAULT_SUPPORTED_FLOP_OPS as FLOP_OPS
from mmengine.analysis.jit_handles import get_shape
from mmengine.config.utils import MODULE2PACKAGE
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils._python_dispatch import (
    _get_current_dispatch_mode,
    _get_current_dispatch_mode_stack,
)


def enable_mmseg_base_configs():
    """Makes ``mmseg::`` config paths load when mmseg comes under another distribution name.

    mmengine translates the module ``mmseg`` to the distribution ``mmsegmentation``. Where mmseg
    was installed as something else (onedl-mmsegmentation), ``_base_ = 'mmseg::...'`` then fails,
    and ``mmengine.hub.get_config`` runs ``pip install mmsegmentation`` over the working package.
    mmengine falls back to the module of the given name, so naming the module itself cures both.

    This is a row of a table of mmengine, set when this package is imported: without it a config
    that says ``'mmseg::...'`` would overwrite the installed library, whoever reads it.
    Changes nothing where mmsegmentation is installed or mmseg is missing. Safe to call again.
    """
    if importlib.util.find_spec('mmseg') is None:
        return
    try:
        importlib.metadata.distribution('mmsegmentation')
    except importlib.metadata.PackageNotFoundError:
        MODULE2PACKAGE['mmseg'] = 'mmseg'


def count_fused_attention():
    """Makes mmengine's counter of operations count fused attention, as it counts the products.

    ``mmengine.analysis``, which the get_flops.py of the libraries asks, knows matrix products and
    takes ``scaled_dot_product_attention`` for an operator without cost: our networks would look
    cheaper than the libraries' that compute the same. This is a row of its table, set when this
    package is imported unless there is one.
    """

    def count(inputs, outputs):
        q, k, v = (get_shape(value) for value in inputs[:3])
        return prod(q[:-1]) * k[-2] * (q[-1] + v[-1])

    FLOP_OPS.setdefault('aten::scaled_dot_product_attention', count)


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


def is_capturing():
    """Whether a CUDA graph is being captured, in which nothing may wait for the device."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def is_faking():
    """Whether operators make fake tensors or a graph of tensors that stand for others."""
    if _get_current_dispatch_mode() is None:  # as nearly always, and forwards ask often
        return False
    modes = _get_current_dispatch_mode_stack()
    return any(isinstance(mode, (FakeTensorMode, ProxyTorchDispatchMode)) for mode in modes)


def has_values(tensor):
    """Whether the values of a tensor can be looked at here: waiting for them is possible."""
    return not (
        is_compiling()
        or is_capturing()
        or is_faking()
        or tensor.is_meta
        or isinstance(tensor, FakeTensor)
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


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


def checkpointed_forward(module):
    """The forward that mmengine's ``activation_checkpointing`` wrapped; None where it did not."""
    forward = vars(module).get('forward')
    source = getattr(forward, '__globals__', {}).get('__name__')
    if source != 'mmengine.runner.activation_checkpointing':
        return None
    return getattr(forward, '__wrapped__', None)
