"""What the Swin families share (arXiv 2103.14030).

Arguments, parameter names and outputs are those of the Swin of mmdet, mmseg and mmpretrain.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.transformer import PatchEmbed
from mmengine.model import BaseModule, ModuleList
from mmengine.model.weight_init import trunc_normal_
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor

from .. import families
from ..errors import UserError, check_counts, check_rates
from ..layers import PatchMerging, SwinBlock, WindowAttention
from ..sparsity import Schedule, TokenStream, run_blocks
from ..sparsity.runner import DENSE_SCHEDULE
from .base import Backbone

# (stage, block, arguments of a SwinBlock) -> block.
BlockMaker = Callable[[int, int, dict], nn.Module]
# (stage, blocks, arguments of PatchMerging or None) -> stage.
StageMaker = Callable[[int, Sequence[nn.Module], dict | None], nn.Module]


class SwinStage(BaseModule):
    """Swin blocks at one resolution and the patch merging after or before them.

    Args:
        blocks: The blocks.
        downsample_cfg: Arguments of :class:`PatchMerging`; None in a stage without.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample_cfg: dict | None):
        super().__init__()
        self.blocks = ModuleList(blocks)
        self.downsample = PatchMerging(**downsample_cfg) if downsample_cfg else None

    def forward(
        self, tokens: Tensor, hw: tuple[int, int], schedule: Schedule = DENSE_SCHEDULE
    ) -> Tensor:
        """(B, N, C) -> (B, N, C), without patch merging."""
        return run_blocks(self.blocks, TokenStream(tokens, tuple(hw)), schedule).tokens

    def merge(self, tokens: Tensor, hw: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Patch merging where the stage has one."""
        return (tokens, hw) if self.downsample is None else self.downsample(tokens, hw)


class SwinBackbone(Backbone):
    """Backbones that are Swin but for their blocks, one of their stages, or the stem.

    Takes every argument of mmdet's / mmseg's and of mmpretrain's ``SwinTransformer``. Given
    ``arch`` it behaves as mmpretrain's does, given ``embed_dims``, ``depths`` and ``num_heads``
    as mmdet's, in the places where the libraries differ: which stages ``frozen_stages`` counts,
    what ``norm_cfg`` and ``drop_rate`` apply to, and ``pad_small_map``. Parameter names of the
    dense network are theirs, so their checkpoints load as they are.

    Args:
        arch: 'tiny', 'small', 'base', 'large' (or the first letter), or a dict with
            ``embed_dims``, ``depths``, ``num_heads``. Default 'tiny' unless widths are given.
        embed_dims: Channels of the first stage (mmdet style).
        depths: Blocks of each stage (mmdet style).
        num_heads: Attention heads of each stage (mmdet style).
        pretrain_img_size: Image side of the pretraining, sizes the position embedding.
        img_size: The same under mmpretrain's name.
        in_channels: Image channels.
        patch_size: Side of the first patches, or (height, width).
        window_size: Attention window side, or one for each stage.
        mlp_ratio: Hidden channels of the MLPs / channels.
        strides: Strides of the patch embedding and of each patch merging.
        out_indices: Stages whose normalised maps are returned.
        out_after_downsample: Return maps after patch merging instead of before.
        qkv_bias: Bias of the qkv projections.
        qk_scale: Factor on dot products; None means head width ** -0.5.
        patch_norm: Norm after the patch embedding and in patch merging.
        drop_rate: Dropout after the embedding; mmdet style also inside blocks.
        attn_drop_rate: Dropout of attention weights.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0.
        use_abs_pos_embed: Add a learned position embedding, resized to the map.
        interpolate_mode: How it is resized.
        act_cfg: Activation of the MLPs.
        norm_cfg: Norm layers; mmpretrain style of the outputs only, None for no norm there.
        with_cp: Recompute block activations in the backward pass.
        frozen_stages: mmdet style: 0 freezes the patch embedding, n also the first n stages;
            mmpretrain style: n freezes the embedding and stages 0 .. n. -1 freezes nothing.
        norm_eval: Keep batch norms in eval mode.
        pad_small_map: False drops the shift where the map is no larger than the window. None
            means False in mmpretrain style, True in mmdet style.
        stage_cfgs: Extra arguments for all stages, or a sequence for each: ``block_cfgs`` (of
            the blocks), ``downsample_cfg`` (of :class:`PatchMerging`), and the arguments of all
            its blocks named in :attr:`STAGE_KEYS`.
        patch_cfg: Extra arguments of mmcv's ``PatchEmbed``.
        pretrained: Deprecated form of ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        convert_weights: Accepted for mmdet's configs and not needed: official Swin checkpoints
            are recognised by their keys.
        init_cfg: Initialisation, see mmengine.
        make_block: Function that makes a block of its stage, its index and the arguments of a
            :class:`SwinBlock`.
        make_stage: Function that makes a stage of its index, its blocks and the arguments of
            :class:`PatchMerging`, None for a stage without.
        make_stem: Function that makes the stem of the arguments of mmcv's ``PatchEmbed``.
        **sparsity: Arguments of :meth:`~dynsp_mm.sparsity.SparsityPlan.parse`.

    Raises:
        UserError: For arguments out of their range; each message names argument, value, rule.
    """

    # Arguments of blocks that ``stage_cfgs`` may give for a whole stage.
    STAGE_KEYS: tuple[str, ...] = ('pad_small_map', 'window_size', 'with_cp')
    # Whether patch merging belongs to the stage after it.
    MERGES_FIRST = False
    # Arguments of patch merging where ``stage_cfgs`` gives none.
    DOWNSAMPLE_CFG: Mapping = {}

    def __init__(
        self,
        arch: None | str | Mapping = None,
        embed_dims: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        pretrain_img_size: int | Sequence[int] = 224,
        img_size: None | int | Sequence[int] = None,
        in_channels: int = 3,
        patch_size: int | Sequence[int] = 4,
        window_size: int | Sequence[int] = 7,
        mlp_ratio: float = 4.0,
        strides: Sequence[int] | None = None,
        out_indices: Sequence[int] = (3,),
        out_after_downsample: bool = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        patch_norm: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        use_abs_pos_embed: bool = False,
        interpolate_mode: str = 'bicubic',
        act_cfg: dict = dict(type='GELU'),
        norm_cfg: dict | None = dict(type='LN'),
        with_cp: bool = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        pad_small_map: bool | None = None,
        stage_cfgs: Mapping | Sequence[Mapping] = dict(),
        patch_cfg: dict = dict(),
        pretrained: str | None = None,
        convert_weights: bool = False,
        init_cfg=None,
        make_block: BlockMaker = lambda stage, block, cfg: SwinBlock(**cfg),
        make_stage: StageMaker = lambda stage, blocks, merging: SwinStage(blocks, merging),
        make_stem: Callable[..., nn.Module] = PatchEmbed,
        **sparsity,
    ):
        if pretrained is not None:
            if init_cfg is not None:
                raise UserError(f'pretrained={pretrained!r}: give either pretrained or init_cfg')
            init_cfg = dict(type='Pretrained', checkpoint=pretrained)
        super().__init__(init_cfg)
        if isinstance(patch_size, list):
            patch_size = tuple(patch_size)
        check_counts(in_channels=in_channels)
        for side in patch_size if isinstance(patch_size, tuple) else (patch_size,):
            check_counts(patch_size=side)
        check_rates(
            drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate
        )
        widths = dict(embed_dims=embed_dims, depths=depths, num_heads=num_heads)
        self.mmdet_style = any(value is not None for value in widths.values())
        self.arch_settings = self._resolve_arch(arch, widths)
        self.embed_dims, self.depths, self.num_heads = (self.arch_settings[key] for key in widths)
        num_stages = len(self.depths)
        window_sizes = per_stage('window_size', window_size, num_stages)
        self.in_channels = in_channels
        self.out_indices = self._resolve_out_indices(out_indices, num_stages)
        self.out_after_downsample = out_after_downsample
        self.use_abs_pos_embed = use_abs_pos_embed
        self.interpolate_mode = interpolate_mode
        most = num_stages - (not self.mmdet_style)
        if not isinstance(frozen_stages, int) or not -1 <= frozen_stages <= most:
            raise UserError(f'frozen_stages={frozen_stages!r}: must lie in -1 .. {most}')
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        if pad_small_map is None:
            pad_small_map = self.mmdet_style
        # mmpretrain's norm_cfg and drop_rate do not reach into the blocks.
        inner_norm = norm_cfg if self.mmdet_style else dict(type='LN')
        inner_drop = drop_rate if self.mmdet_style else 0.0
        strides = self._resolve_strides(strides, patch_size)
        self.strides = _total_strides(strides)

        self.patch_embed = make_stem(
            **{
                'in_channels': in_channels,
                'input_size': img_size or pretrain_img_size,
                'embed_dims': self.embed_dims,
                'conv_type': 'Conv2d',
                'kernel_size': patch_size,
                'stride': patch_size,
                'norm_cfg': inner_norm if patch_norm else None,
                **patch_cfg,
            }
        )
        self.patch_resolution = tuple(self.patch_embed.init_out_size)
        if use_abs_pos_embed:
            rows, cols = self.patch_resolution
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, rows * cols, self.embed_dims))
        self.drop_after_pos = nn.Dropout(drop_rate)

        self.widths = tuple(self.embed_dims * 2**i for i in range(num_stages))
        self._plan_sparsity(self.depths, self.widths, sparsity, predictor_eps=1e-5)
        attn_cfgs = dict(qkv_bias=qkv_bias, attn_drop=attn_drop_rate, proj_drop=inner_drop)
        if qk_scale is not None:
            attn_cfgs['qk_scale'] = qk_scale
        block_cfg = dict(
            ffn_ratio=mlp_ratio,
            pad_small_map=pad_small_map,
            attn_cfgs=attn_cfgs,
            ffn_cfgs=dict(ffn_drop=inner_drop, act_cfg=act_cfg),
            norm_cfg=inner_norm,
            with_cp=with_cp,
        )
        drop_paths = iter(torch.linspace(0, drop_path_rate, sum(self.depths)).tolist())
        self.stages = ModuleList()
        for i, depth in enumerate(self.depths):
            extra = self._stage_extra(stage_cfgs, i, num_stages)
            cfgs = self._block_cfgs(i, extra, dict(block_cfg, window_size=window_sizes[i]))
            blocks = [
                make_block(i, j, {'drop_path': next(drop_paths), **cfgs[j]}) for j in range(depth)
            ]
            self.plan.check(i, blocks)
            merging = self._merging_cfg(i, extra, strides, inner_norm if patch_norm else None)
            self.stages.append(make_stage(i, blocks, merging))
        self.num_features = list(self.widths)
        if out_after_downsample:
            self.num_features = [*self.widths[1:], self.widths[-1]]
        for i in self.out_indices:
            norm = nn.Identity()
            if norm_cfg is not None:
                norm = build_norm_layer(norm_cfg, self.num_features[i])[1]
            self.add_module(f'norm{i}', norm)
        # Distributed wrappers note when they are made which parameters have gradients.
        self._freeze_stages()

    # ------------------------------------------------------------------ building
    @classmethod
    def _resolve_arch(cls, arch: None | str | Mapping, widths: dict) -> dict:
        """The size, from ``arch`` or from mmdet's arguments."""
        card = families.of(cls)
        if card is None:
            raise UserError(
                f'{cls.__name__} has no card in dynsp_mm.families: register one, or inherit '
                'from the class of a family'
            )
        given = {key: value for key, value in widths.items() if value is not None}
        if given and arch is not None:
            raise UserError(f'arch={arch!r}: give either arch or {", ".join(given)}')
        if arch is None:
            arch = {**card.sizes['tiny'], **given}
        return families.resolve_size(card, arch)

    @classmethod
    def _stage_extra(
        cls, stage_cfgs: Mapping | Sequence[Mapping], stage: int, num_stages: int
    ) -> Mapping:
        if isinstance(stage_cfgs, (list, tuple)):
            if len(stage_cfgs) != num_stages:
                raise UserError(
                    f'stage_cfgs has {len(stage_cfgs)} entries: needs one for each '
                    f'of the {num_stages} stages'
                )
            stage_cfgs = stage_cfgs[stage]
        known = {'block_cfgs', 'downsample_cfg', *cls.STAGE_KEYS}
        unknown = set(stage_cfgs) - known
        if unknown:
            raise UserError(
                f'stage_cfgs: unknown keys {", ".join(sorted(unknown))}; known are '
                f'{", ".join(sorted(known))}'
            )
        return stage_cfgs

    def _resolve_strides(
        self, strides: Sequence[int] | None, patch_size: int | tuple[int, int]
    ) -> tuple:
        """Strides of the stem and of each patch merging."""
        # mmpretrain's patch merging has the stride of its kernel, 2 unless configured.
        later = (2 if self.mmdet_style else None,) * (len(self.depths) - 1)
        strides = tuple(strides or (patch_size, *later))
        if len(strides) != len(self.depths) or strides[0] != patch_size:
            raise UserError(
                f'strides={strides!r}: needs one stride per stage, the first equal '
                f'to patch_size={patch_size}'
            )
        return strides

    def _merging_cfg(
        self, stage: int, extra: Mapping, strides: Sequence, norm_cfg: dict | None
    ) -> dict | None:
        """Arguments of the patch merging in a stage; None where it has none."""
        merged = stage + (not self.MERGES_FIRST)  # the stage of the merged map
        if not 0 < merged < len(self.depths):
            return None
        return {
            'in_channels': self.widths[merged - 1],
            'out_channels': self.widths[merged],
            'stride': strides[merged],
            'norm_cfg': norm_cfg,
            **extra.get('downsample_cfg', self.DOWNSAMPLE_CFG),
        }

    def _block_cfgs(self, stage: int, extra: Mapping, common: Mapping) -> list[dict]:
        """Arguments of the blocks of a stage.

        Args:
            stage: Index of the stage.
            extra: Entry of ``stage_cfgs`` for it.
            common: Arguments of all its blocks.
        """
        given, depth = extra.get('block_cfgs', {}), self.depths[stage]
        if isinstance(given, (list, tuple)) and len(given) != depth:
            raise UserError(
                f'stage_cfgs: block_cfgs has {len(given)} entries: stage {stage} has {depth} blocks'
            )
        cfgs = []
        for j in range(depth):
            cfg = {
                **common,
                'embed_dims': self.widths[stage],
                'num_heads': self.num_heads[stage],
                'shift': j % 2 == 1,
                **{key: value for key, value in extra.items() if key in self.STAGE_KEYS},
            }
            if self.plan.needs_fast_path(stage, j):
                cfg['fast_path'] = True
            cfgs.append(
                {**cfg, **deepcopy(given[j] if isinstance(given, (list, tuple)) else given)}
            )
        return cfgs

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the maps of ``out_indices``.

        Args:
            x: (B, in_channels, H, W), of any size, any float dtype; maps are padded.

        Returns:
            For each output stage a contiguous (B, C_i, H_i, W_i) map, H_i = ceil(H / 4 / 2**i).
        """
        self._check_input(x, self.in_channels)
        batch = self._look_at(x)
        x, hw = self.patch_embed(x)
        if self.use_abs_pos_embed:
            x = x + self._position_embedding(hw)
        x = self.drop_after_pos(x)
        outs = []
        for i, stage in enumerate(self.stages):
            if self.MERGES_FIRST:
                x, hw = stage.merge(x, hw)
            x = stage(x, hw, self.plan.schedule(i, self.token_predictors, batch))
            if self.out_after_downsample:
                x, hw = stage.merge(x, hw)
            if i in self.out_indices:
                out = getattr(self, f'norm{i}')(x)
                out = out.transpose(1, 2).reshape(x.shape[0], -1, *hw).contiguous()
                last = len(self.stages) - 1
                outs.append(batch.clear(out, min(i + self.out_after_downsample, last)))
            if not (self.out_after_downsample or self.MERGES_FIRST):
                x, hw = stage.merge(x, hw)
        return tuple(outs)

    def _position_embedding(self, hw: tuple[int, int]) -> Tensor:
        if tuple(hw) == self.patch_resolution:
            return self.absolute_pos_embed
        embedding = self.absolute_pos_embed.unflatten(1, self.patch_resolution).permute(0, 3, 1, 2)
        embedding = F.interpolate(embedding, size=hw, mode=self.interpolate_mode)
        return embedding.flatten(2).transpose(1, 2)

    # ------------------------------------------------------------------ training
    def _init_from_scratch(self) -> None:
        if self.use_abs_pos_embed:
            trunc_normal_(self.absolute_pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, WindowAttention):
                trunc_normal_(module.relative_position_bias_table, std=0.02)

    @property
    def num_frozen(self) -> int:
        return self.frozen_stages + (not self.mmdet_style)

    def _freeze_stages(self) -> None:
        if self.frozen_stages >= 0:
            self._freeze(self.patch_embed, self.drop_after_pos)
            if self.use_abs_pos_embed:
                self.absolute_pos_embed.requires_grad = False
        for i in range(self.num_frozen):
            self._freeze(self.stages[i], *self.plan.predictors_of(i, self.token_predictors))
            if i in self.out_indices:
                self._freeze(getattr(self, f'norm{i}'))

    def train(self, mode: bool = True) -> 'SwinBackbone':
        """Sets the mode; frozen stages stay in eval mode without gradients."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise decay, and the number of depths.

        The stem is 0, block j (counted from 1 through all stages) is j, the other modules of a
        stage belong to its last block, or to its first where patch merging comes first; heads,
        output norms and token predictors are last.
        """
        num_layers = sum(self.depths) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        words = param_name[len(prefix) :].split('.')
        if words[0] == 'patch_embed':
            return 0, num_layers
        if words[0] != 'stages':
            return num_layers - 1, num_layers
        stage = int(words[1])
        if words[2] == 'blocks':
            return sum(self.depths[:stage]) + int(words[3]) + 1, num_layers
        if self.MERGES_FIRST:
            return sum(self.depths[:stage]) + 1, num_layers
        return sum(self.depths[: stage + 1]), num_layers


def _total_strides(strides: Sequence) -> tuple[tuple[int, int], ...]:
    """Pixels to a position in each stage, of strides of which None means 2."""
    totals, total = [], (1, 1)
    for stride in strides:
        steps = stride if isinstance(stride, (list, tuple)) else (stride or 2,) * 2
        total = (total[0] * steps[0], total[1] * steps[1])
        totals.append(total)
    return tuple(totals)


def per_stage(
    name: str, value: int | Sequence[int], num_stages: int, least: int = 1
) -> tuple[int, ...]:
    """Whole numbers, one for each stage, from one for all or a sequence.

    Raises:
        UserError: There are more or fewer than stages, or one is below ``least``.
    """
    values = value if isinstance(value, (list, tuple)) else (value,) * num_stages
    if len(values) != num_stages:
        raise UserError(f'{name}={value!r}: needs one for each of the {num_stages} stages')
    for entry in values:
        check_counts(least, **{name: entry})
    return tuple(values)
