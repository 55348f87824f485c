"""ConvNeXt with fast and slow paths (arXiv 2207.01580; public code raoyongming/DynamicViT)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn as nn
from mmengine.model import ModuleList
from mmengine.model.weight_init import trunc_normal_
from mmengine.registry import MODELS
from torch import Tensor

from .. import families
from ..errors import UserError, check_counts, check_rates
from ..layers import ConvNeXtBlock, LayerNorm2d
from ..sparsity import TokenStream, run_blocks
from ..sparsity.plan import KeepRatios
from .base import Backbone


@MODELS.register_module()
class DynamicConvNeXt(Backbone):
    """ConvNeXt that runs its MLPs only where the image needs them.

    It is a drop-in for mmpretrain's ``ConvNeXt`` (V1 and V2): it takes its arguments, and its
    checkpoints load as they are, for the parameters of the dense network have its names.

    Args:
        arch: 'atto', 'femto', 'pico', 'nano', 'tiny', 'small', 'base', 'large', 'xlarge',
            'huge', or a dict with ``depths`` and ``channels``.
        keep_ratios: See :class:`DynamicSwin`.
        in_channels: Image channels.
        stem_patch_size: Side of the first patches.
        norm_cfg: dict(type='LN2d' or 'LN', eps=...): layer norms over channels.
        act_cfg: Activation of the MLPs.
        linear_pw_conv: Accepted; pointwise convolutions are linear layers on channels-last
            tokens either way, and 1x1 convolution weights are reshaped on loading.
        use_grn: Global response normalisation in the slow path (ConvNeXt-V2).
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0.
        layer_scale_init_value: Initial layer scale; 0 means none.
        out_indices: Stage or stages whose normalised maps are returned.
        frozen_stages: Number of stages, with the downsampling before them, to freeze.
        gap_before_final_norm: Average over positions before the output norms, for
            classification; outputs are then (B, C).
        with_cp: Recompute block activations in the backward pass.
        init_cfg: Initialisation, see mmengine; None means truncated normal (std 0.02).
        **sparsity: Other arguments of :meth:`~dynsp_mm.sparsity.SparsityPlan.parse`.

    Raises:
        UserError: For arguments out of their range; each message names argument, value, rule.
    """

    def __init__(
        self,
        arch: str | Mapping = 'tiny',
        keep_ratios: KeepRatios = None,
        in_channels: int = 3,
        stem_patch_size: int = 4,
        norm_cfg: dict = dict(type='LN2d', eps=1e-6),
        act_cfg: dict = dict(type='GELU'),
        linear_pw_conv: bool = True,
        use_grn: bool = False,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = 0,
        gap_before_final_norm: bool = True,
        with_cp: bool = False,
        init_cfg=None,
        **sparsity,
    ):
        super().__init__(init_cfg)
        check_counts(in_channels=in_channels, stem_patch_size=stem_patch_size)
        check_rates(drop_path_rate=drop_path_rate)
        size = families.resolve_size(families.of(type(self)), arch)
        self.depths, self.channels = size['depths'], size['channels']
        num_stages = len(self.depths)
        self.in_channels = in_channels
        self.stem_patch_size = stem_patch_size
        self.strides = tuple((stem_patch_size * 2**i,) * 2 for i in range(num_stages))
        self.out_indices = self._resolve_out_indices(out_indices, num_stages)
        self.gap_before_final_norm = gap_before_final_norm
        if not isinstance(frozen_stages, int) or not 0 <= frozen_stages <= num_stages:
            raise UserError(f'frozen_stages={frozen_stages!r}: must lie in 0 .. {num_stages}')
        self.frozen_stages = frozen_stages
        if (
            not isinstance(norm_cfg, Mapping)
            or norm_cfg.get('type') not in ('LN2d', 'LN')
            or set(norm_cfg) - {'type', 'eps'}
        ):
            raise UserError(f"norm_cfg={norm_cfg!r}: must be dict(type='LN2d' or 'LN', eps=...)")
        eps = norm_cfg.get('eps', 1e-5)
        arguments = dict(sparsity, keep_ratios=keep_ratios)
        self._plan_sparsity(self.depths, self.channels, arguments, predictor_eps=eps)

        self.downsample_layers = ModuleList()
        self.stages = nn.ModuleList()
        drop_paths = torch.linspace(0, drop_path_rate, sum(self.depths)).tolist()
        for i, (depth, channels) in enumerate(zip(self.depths, self.channels)):
            if i == 0:
                layers = [
                    nn.Conv2d(in_channels, channels, stem_patch_size, stride=stem_patch_size),
                    LayerNorm2d(channels, eps=eps),
                ]
            else:
                before = self.channels[i - 1]
                layers = [LayerNorm2d(before, eps=eps), nn.Conv2d(before, channels, 2, stride=2)]
            self.downsample_layers.append(nn.Sequential(*layers))
            blocks = ModuleList(
                ConvNeXtBlock(
                    channels,
                    eps=eps,
                    act_cfg=act_cfg,
                    drop_path=drop_paths[sum(self.depths[:i]) + j],
                    layer_scale_init_value=layer_scale_init_value,
                    use_grn=use_grn,
                    with_cp=with_cp,
                    fast_path=self.plan.needs_fast_path(i, j),
                )
                for j in range(depth)
            )
            self.plan.check(i, blocks)
            self.stages.append(blocks)
            if i in self.out_indices:
                self.add_module(f'norm{i}', LayerNorm2d(channels, eps=eps))
        self._freeze_stages()

    @property
    def min_side(self) -> int:
        """Least side of an image: nothing is padded, and each later stage halves the map."""
        return self.stem_patch_size * 2 ** (len(self.depths) - 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the maps of ``out_indices``.

        Args:
            x: (B, in_channels, H, W), each side at least :attr:`min_side` (32 unless configured),
                any float dtype.

        Returns:
            For each output stage a contiguous (B, C_i, H_i, W_i) map, H_i = H // 4 // 2**i, or
            (B, C_i) with ``gap_before_final_norm``.
        """
        self._check_input(x, self.in_channels)
        batch = self._look_at(x)
        x = x.contiguous(memory_format=torch.channels_last)
        outs = []
        for i, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages)):
            x = downsample(x)
            B, C, H, W = x.shape
            # Free for a channels-last map; a copy where the convolution chose another layout.
            tokens = x.permute(0, 2, 3, 1).reshape(B, H * W, C)
            schedule = self.plan.schedule(i, self.token_predictors, batch)
            tokens = run_blocks(stage, TokenStream(tokens, (H, W)), schedule).tokens
            x = tokens.view(B, H, W, C).permute(0, 3, 1, 2)
            if i in self.out_indices:
                # The norm averages, so that whoever listens to it finds the map either way.
                if self.gap_before_final_norm:
                    out = getattr(self, f'norm{i}')(batch.scale(x, i), True).flatten(1)
                else:
                    out = batch.clear(getattr(self, f'norm{i}')(x), i).contiguous()
                outs.append(out)
        return tuple(outs)

    # ------------------------------------------------------------------ training
    def _init_from_scratch(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()

    @property
    def num_frozen(self) -> int:
        return self.frozen_stages

    def _freeze_stages(self) -> None:
        for i in range(self.num_frozen):
            predictors = self.plan.predictors_of(i, self.token_predictors)
            self._freeze(self.downsample_layers[i], self.stages[i], *predictors)

    def train(self, mode: bool = True) -> 'DynamicConvNeXt':
        """Sets the mode; frozen stages stay in eval mode without gradients."""
        super().train(mode)
        self._freeze_stages()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise decay, and the number of depths.

        ConvNeXt's own rule: the stem is 0, stages 0 and 1 are 1 and 2, three blocks of stage 2
        share a depth, stage 3 is one depth; heads, output norms and token predictors are last.
        """
        last = 12 if self.depths[-2] > 9 else 6
        if not param_name.startswith(prefix):
            return last + 1, last + 2
        words = param_name[len(prefix) :].split('.')
        if words[0] not in ('downsample_layers', 'stages'):
            return last + 1, last + 2
        stage = int(words[1])
        if stage == 3:
            return last, last + 2
        if words[0] == 'downsample_layers':
            return (0 if stage == 0 else stage + 1), last + 2
        return (3 + int(words[2]) // 3 if stage == 2 else stage + 1), last + 2
