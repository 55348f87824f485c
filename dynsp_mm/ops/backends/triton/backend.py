"""The backend that runs the Triton kernels, and where it can."""

import importlib
import importlib.util
import os

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import Packed, dtype_name
from ..eager import EagerBackend
from ..registry import register_backend
from .dtypes import DTYPES

# On older GPUs Triton does not compile; the second holds for bfloat16.
CAPABILITY, CAPABILITY_BFLOAT16 = (7, 0), (8, 0)


@register_backend
class TritonBackend(EagerBackend):
    """The products of the device's library and Triton for what lies between them (CUDA).

    'auto' does not prefer it before it is measured on a GPU. With ``TRITON_INTERPRET=1`` the
    kernels also run on a CPU, very slowly, for tests. They compute in float32.
    """

    name = 'triton'
    devices = ('cuda',)
    dtypes = DTYPES
    tolerances = {torch.float32: 3e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}

    def __init__(self, device: torch.device):
        super().__init__(device)
        from .bias_gelu import bias_gelu
        from .layer_norm import gather_layer_norm
        from .scatter_add import scale_scatter_add_

        self._bias_gelu = bias_gelu
        self._gather_layer_norm = gather_layer_norm
        self._scale_scatter_add_ = scale_scatter_add_

    @classmethod
    def not_supported_reasons(cls, device: torch.device, dtype: torch.dtype) -> list[str]:
        reasons = cls.dtype_reasons(dtype)
        # Triton looks where a kernel is decorated, so this has to be set before anything imports
        # it.
        if device.type == 'cpu' and os.environ.get('TRITON_INTERPRET') == '1' and has_interpreter():
            return reasons
        reasons += cls.device_reasons(device)
        if not torch.cuda.is_available():
            reasons.append('PyTorch sees no CUDA device')
        try:
            importlib.import_module('triton')
        except ImportError as error:
            reasons.append(f'triton cannot be imported: {error}')
        if device.type == 'cuda' and torch.cuda.is_available():
            needed = CAPABILITY_BFLOAT16 if dtype == torch.bfloat16 else CAPABILITY
            capability = torch.cuda.get_device_capability(device)
            if capability < needed:
                reasons.append(
                    '{} needs compute capability {}.{}, '.format(dtype_name(dtype), *needed)
                    + '{} has {}.{}'.format(device, *capability)
                )
        return reasons

    def gather_norm(self, tokens: Tensor, rows: Tensor | None, eps: float) -> Tensor:
        return self._gather_layer_norm(tokens, rows, None, None, eps)

    def linear_gelu(self, x: Tensor, layer: Packed) -> Tensor:
        if layer.bias is None:
            return super().linear_gelu(x, layer)
        return self._bias_gelu(F.linear(x, layer.weight), layer.bias)

    def linear_add_(self, target: Tensor, rows: Tensor | None, x: Tensor, layer: Packed) -> None:
        self._scale_scatter_add_(target, rows, F.linear(x, layer.weight), None, layer.bias)


def has_interpreter() -> bool:
    """Whether the installed Triton can interpret kernels, which 2.1 cannot by the environment."""
    return (
        importlib.util.find_spec('triton') is not None
        and importlib.util.find_spec('triton.runtime.interpreter') is not None
    )
