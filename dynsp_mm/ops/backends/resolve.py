"""Which implementation of the sparse blocks runs: plain PyTorch, oneDNN or Triton."""

import importlib.util
import os
from collections.abc import Callable

import torch

# What the kernels of dynsp_mm.ops.backends.triton take; they compute in float32.
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# On older GPUs Triton does not compile; the second holds for bfloat16.
CAPABILITY, CAPABILITY_BFLOAT16 = (7, 0), (8, 0)
# What 'auto' prefers to eager, by type of device. Triton waits for a measurement on a GPU.
PREFERRED = {'cpu': 'onednn'}


def has_interpreter() -> bool:
    """Whether the installed Triton can interpret kernels, which 2.1 cannot by the environment."""
    return (
        importlib.util.find_spec('triton') is not None
        and importlib.util.find_spec('triton.runtime.interpreter') is not None
    )


def why_not_eager(device: torch.device, dtype: torch.dtype) -> str | None:
    """None: PyTorch's own operators run everywhere."""
    return None


def why_not_onednn(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why oneDNN's fused linear layers cannot run, or None."""
    operators = torch.ops.mkldnn
    if device.type != 'cpu':
        return f'needs the CPU, the tensors are on {device}'
    if not torch.backends.mkldnn.is_available():
        return 'this PyTorch is built without oneDNN'
    if not torch.backends.mkldnn.enabled:
        return 'torch.backends.mkldnn is switched off'
    for name in ('_linear_pointwise', '_reorder_linear_weight'):
        if not hasattr(operators, name):
            return f'this PyTorch has no torch.ops.mkldnn.{name}'
    if dtype == torch.bfloat16:
        # The operator that tells is younger than the others.
        if (
            not hasattr(operators, '_is_mkldnn_bf16_supported')
            or not operators._is_mkldnn_bf16_supported()
        ):
            return 'oneDNN computes no bfloat16 on this processor'
    elif dtype != torch.float32:
        return f'needs float32 or bfloat16, the tensors are {_short(dtype)}'
    return None


def why_not_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the Triton kernels cannot run, or None."""
    if dtype not in TRITON_DTYPES:
        return (
            f'needs {", ".join(map(_short, TRITON_DTYPES[:-1]))} or '
            f'{_short(TRITON_DTYPES[-1])}, the tensors are {_short(dtype)}'
        )
    # Triton looks where a kernel is decorated, so this has to be set before anything imports it.
    if device.type == 'cpu' and os.environ.get('TRITON_INTERPRET') == '1' and has_interpreter():
        return None
    if device.type != 'cuda':
        return f'needs a CUDA device, the tensors are on {device}'
    if not torch.cuda.is_available():
        return 'PyTorch sees no CUDA device'
    try:
        importlib.import_module('triton')
    except ImportError as error:
        return f'triton cannot be imported: {error}'
    needed = CAPABILITY_BFLOAT16 if dtype == torch.bfloat16 else CAPABILITY
    capability = torch.cuda.get_device_capability(device)
    if capability < needed:
        return '{} needs compute capability {}.{}, '.format(
            _short(dtype), *needed
        ) + '{} has {}.{}'.format(device, *capability)
    return None


WHY_NOT: dict[str, Callable[[torch.device, torch.dtype], str | None]] = {
    'eager': why_not_eager,
    'onednn': why_not_onednn,
    'triton': why_not_triton,
}


# What resolve_backend takes.
BACKENDS = ('auto', *WHY_NOT)


def check_backend(name: str) -> str:
    """The name; ValueError for one that is none of :data:`BACKENDS`."""
    if name not in BACKENDS:
        choices = ', '.join(map(repr, BACKENDS))
        raise ValueError(f'backend={name!r}: must be one of {choices}')
    return name


def resolve_backend(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend that a name stands for on given tensors.

    Args:
        name: 'eager' (PyTorch's operators), 'onednn' (fused linear layers on a CPU), 'triton'
            (:mod:`dynsp_mm.ops.backends.triton` on a GPU), or 'auto': oneDNN on a CPU where that can run,
            else eager.
        device: Of the tensors.
        dtype: In which they are computed.

    Returns:
        'eager', 'onednn' or 'triton'.

    Raises:
        ValueError: For another name, or a named backend that cannot run.
    """
    check_backend(name)
    device = torch.device(device)
    if name == 'auto':
        preferred = PREFERRED.get(device.type, 'eager')
        return 'eager' if WHY_NOT[preferred](device, dtype) else preferred
    reason = WHY_NOT[name](device, dtype)
    if reason:
        raise ValueError(f'backend={name!r}: {reason}')
    return name


def _short(dtype: torch.dtype) -> str:
    return str(dtype).replace('torch.', '')
