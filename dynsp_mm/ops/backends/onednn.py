"""oneDNN on a CPU: linear layers in its own layout, fused with GELU."""

import torch
from torch import Tensor

from .base import Packed
from .eager import EagerBackend
from .registry import register_backend


@register_backend
class OneDNNBackend(EagerBackend):
    """oneDNN's matrix products on weights in its own layout, with GELU in the same pass.

    The other steps are those of eager torch, whose convolutions and attention on a CPU are
    oneDNN's or as fast.
    """

    name = 'onednn'
    devices = ('cpu',)
    dtypes = (torch.float32, torch.bfloat16)
    tolerances = {torch.float32: 3e-6, torch.bfloat16: 2e-2}
    preferred_on = ('cpu',)

    @classmethod
    def not_supported_reasons(cls, device: torch.device, dtype: torch.dtype) -> list[str]:
        reasons = super().not_supported_reasons(device, dtype)
        operators = torch.ops.mkldnn
        if not torch.backends.mkldnn.is_available():
            reasons.append('this PyTorch is built without oneDNN')
        if not torch.backends.mkldnn.enabled:
            reasons.append('torch.backends.mkldnn is switched off')
        for name in ('_linear_pointwise', '_reorder_linear_weight'):
            if not hasattr(operators, name):
                reasons.append(f'this PyTorch has no torch.ops.mkldnn.{name}')
        # The operator that tells is younger than the others.
        if dtype == torch.bfloat16 and not (
            hasattr(operators, '_is_mkldnn_bf16_supported')
            and operators._is_mkldnn_bf16_supported()
        ):
            reasons.append('oneDNN computes no bfloat16 on this processor')
        return reasons

    def pack(self, weight: Tensor, bias: Tensor | None) -> Packed:
        # The layout is that for any number of rows.
        weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        return Packed(weight, None if bias is None else bias.detach().clone())

    def linear(self, x: Tensor, layer: Packed) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, *layer, 'none', [], '')

    def linear_gelu(self, x: Tensor, layer: Packed) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, *layer, 'gelu', [], 'none')
