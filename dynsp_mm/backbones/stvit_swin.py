"""STViT-R on Swin, a drop-in for the Swin of mmdet, mmseg and mmpretrain (arXiv 2303.08685).

Public code: changsn/STViT-R, changsn/STViT-R-Object-Detection.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model.weight_init import trunc_normal_
from mmengine.registry import MODELS
from torch import Tensor

from ..errors import UserError, check_choice, check_counts, check_number
from ..layers import ConvStem, GlobalBlock, InnerNeighbourhoodBlock, NeighbourhoodBlock, SwinBlock
from ..ops import pool_windows
from ..sparsity import Schedule, TokenStream, run_blocks
from ..sparsity.plan import ARGUMENTS
from ..sparsity.runner import DENSE_SCHEDULE
from .swin_backbone import SwinBackbone, SwinStage

# What the blocks of a group do, in order.
ROLES = ('plain', 'generate', 'refine', 'local', 'global', 'recover')
GROUP = len(ROLES)
FORMS = ('dense_prediction', 'classification')
PAD_MASKS = ('full', 'release')


def block_role(block: int, depth: int) -> str:
    """Role of a block in a stage with semantic tokens.

    The stage is as many groups of six blocks as fit (:data:`ROLES`); what is left over is plain
    Swin blocks at its end.
    """
    return ROLES[block % GROUP] if block < depth // GROUP * GROUP else 'plain'


class SemanticStage(SwinStage):
    """Groups of six blocks that go through semantic tokens and back, then plain Swin blocks.

    Args:
        blocks: By the rule of :func:`block_role`.
        downsample_cfg: Arguments of mmcv's ``PatchMerging``; None in the last stage.
        window_size: Window side.
        side: Side of the grid of semantic tokens in a window.
        form: One of :data:`FORMS`.
        pad_mask: One of :data:`PAD_MASKS`.
        token_grid: Size of the map of ``semantic_token2``; None for a stage without.
        embed_dims: Channels of that map.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        downsample_cfg: dict | None,
        window_size: int,
        side: int,
        form: str,
        pad_mask: str,
        token_grid: tuple[int, int] | None = None,
        embed_dims: int = 0,
    ):
        super().__init__(blocks, downsample_cfg)
        self.window_size = window_size
        self.side = side
        self.form = form
        self.pad_mask = pad_mask
        self.token_grid = token_grid
        if token_grid is not None:
            self.semantic_token2 = nn.Parameter(torch.zeros(1, math.prod(token_grid), embed_dims))

    def forward(
        self, tokens: Tensor, hw: tuple[int, int], schedule: Schedule = DENSE_SCHEDULE
    ) -> Tensor:
        """(B, N, C) -> (B, N, C), before patch merging."""
        blocks, hw = list(self.blocks), tuple(hw)
        last = len(blocks) // GROUP * GROUP
        for first in range(0, last, GROUP):
            plain, *group = blocks[first : first + GROUP]
            x = run_blocks([plain], TokenStream(tokens, hw)).tokens.unflatten(1, hw)
            if self.form == 'classification':
                x = self._classification(group, x, self.token_grid if first == 0 else None)
            else:
                x = self._dense_prediction(group, x)
            tokens = x.flatten(1, 2)
        return run_blocks(blocks[last:], TokenStream(tokens, hw)).tokens

    def _dense_prediction(self, group: list[nn.Module], x: Tensor) -> Tensor:
        generate, refine, local, everywhere, recover = group
        corner = None
        if self.pad_mask == 'release':
            corner = tuple(-length % self.window_size for length in x.shape[1:3])
        semantic = generate(pool_windows(x, self.window_size, self.side), x, corner)
        semantic = refine(semantic, x, corner)
        semantic = everywhere(local(semantic, semantic))
        return recover(x, semantic, corner)

    def _classification(
        self, group: list[nn.Module], x: Tensor, token_grid: tuple[int, int] | None
    ) -> Tensor:
        generate, refine, local, everywhere, recover = group
        semantic = generate(pool_windows(x, self.window_size, self.side), x)
        queries = semantic
        if token_grid is not None:
            queries = semantic + self._resized_token2(semantic.shape[1:3])
        semantic = refine(queries, semantic, x)
        semantic = everywhere(local(semantic, semantic))
        return recover(x, semantic)

    def _resized_token2(self, grid: tuple[int, int]) -> Tensor:
        token = self.semantic_token2.unflatten(1, self.token_grid)
        if tuple(grid) == self.token_grid:
            return token
        token = F.interpolate(token.permute(0, 3, 1, 2), size=grid, mode='bicubic')
        return token.permute(0, 2, 3, 1)


def make_conv_stem(**cfg) -> ConvStem:
    """The stem, from arguments of mmcv's ``PatchEmbed``."""
    return ConvStem(cfg['in_channels'], cfg['embed_dims'], cfg['input_size'])


def resolve_key_windows(
    key_windows: Sequence[int] | None, form: str, window: int, side: int
) -> tuple[int, ...]:
    """Sides of the neighbourhoods of blocks 2, 3 and 6, or of block 2 alone in classification.

    Args:
        key_windows: See :class:`STViTSwin`.
        form: One of :data:`FORMS`.
        window: Window side.
        side: Side of the grid of semantic tokens in a window.

    Raises:
        UserError: There are too few or too many, or one is smaller than what it surrounds.
    """
    if side > window:
        raise UserError(
            f'semantic_size={side}: a window of window_size={window} holds a '
            f'grid of at most {window} x {window} semantic tokens'
        )
    classification = form == 'classification'
    if key_windows is None:
        return (window + side,) if classification else (2 * window, 3 * window, 9 * side)
    smallest = (window,) if classification else (window, window, side)
    key_windows = tuple(key_windows) if isinstance(key_windows, (list, tuple)) else key_windows
    if not isinstance(key_windows, tuple) or len(key_windows) != len(smallest):
        raise UserError(
            f'key_windows={key_windows!r}: form={form!r} needs a tuple of {len(smallest)}'
        )
    for i, (size, least) in enumerate(zip(key_windows, smallest)):
        if not isinstance(size, Integral) or isinstance(size, bool) or size < least:
            raise UserError(
                f'key_windows={key_windows!r}: entry {i} must be a whole number '
                f'>= {least}, the side of the window that it surrounds'
            )
    return key_windows


def make_semantic_block(
    role: str, form: str, side: int, key_windows: Sequence[int], layer_scale: float, cfg: dict
) -> nn.Module:
    """A block of a group, other than its plain one.

    Args:
        role: One of :data:`ROLES`.
        form: One of :data:`FORMS`.
        side: Side of the grid of semantic tokens in a window.
        key_windows: Of :func:`resolve_key_windows`.
        layer_scale: Start of the scales per channel.
        cfg: Arguments of a :class:`SwinBlock`.
    """
    cfg = dict(cfg, role=role, layer_scale_init_value=layer_scale)
    window = cfg.pop('window_size')
    for name in ('shift', 'pad_small_map'):
        cfg.pop(name)
    if role == 'local':
        return NeighbourhoodBlock(side, side, side, **cfg)
    if role == 'global' or form == 'classification' and role != 'generate':
        return GlobalBlock(**cfg)
    if form == 'classification':
        return InnerNeighbourhoodBlock(side, window, key_windows[0], **cfg)
    if role == 'recover':
        return NeighbourhoodBlock(window, side, key_windows[2], **cfg)
    return NeighbourhoodBlock(side, window, key_windows[0 if role == 'generate' else 1], **cfg)


@MODELS.register_module()
class STViTSwin(SwinBackbone):
    """Swin that does most of one stage's work on a few semantic tokens per window (STViT-R).

    The stage ``semantic_stage`` consists of groups of six blocks:

    1. a plain Swin block, its windows not shifted, as those of every even block;
    2. generate: each window is max-pooled to a few semantic tokens, which attend to the image
       tokens around the window;
    3. refine: the semantic tokens attend to image tokens farther around;
    4. self-attention among the semantic tokens of a window;
    5. self-attention among all semantic tokens of the image;
    6. recover: the image tokens attend to the semantic tokens around their window; the map is
       dense again.

    Blocks beyond the last full group are plain Swin blocks at the end of the stage (depth 18 is
    three groups, depth 8 is one group and two Swin blocks). All other stages are Swin's. The stem
    is the paper's, two convolutions instead of a patch embedding.

    Keys and values are projected once for each position, then cut into overlapping
    neighbourhoods. The published detection code cuts first, with equal results up to rounding
    and more multiply-adds than dense Swin.

    Args:
        arch: See :class:`SwinBackbone`.
        semantic_stage: Index of the stage with semantic tokens; at least six blocks deep.
        semantic_size: A window has ``semantic_size ** 2`` semantic tokens.
        key_windows: Sides of the neighbourhoods that blocks 2 and 3 attend to, in image tokens,
            and that block 6 attends to, in semantic tokens. None means twice and three times the
            window and nine times ``semantic_size``: the published (14, 21, 27). In the
            classification form only block 2 has one, None means (window + semantic_size, ), the
            published (10, ).
        pad_mask: Which keys are masked in blocks 2, 3 and 6. 'full': all outside the map.
            'release': as the published detection code, which leaves most of the padding of the
            last windows unmasked; for its checkpoints. Maps that windows fill in one or both
            directions have other masks still; the function ``neighbourhood_mask`` has the details.
            Of no effect in the classification form, which pads no keys.
        layer_scale_init_value: Start of the scales per channel in blocks 2 to 6.
        form: 'dense_prediction', or 'classification', the published ImageNet form: block 2 attends
            to the window's own pooled tokens and to a neighbourhood inside the map, and replaces
            the tokens; block 3 attends to all semantic and image tokens, block 6 to all semantic
            tokens. At 224 px it is the published network; at other sizes, which that refuses, the
            last windows are padded and neighbourhoods moved to lie inside the map.
        semantic_token2: Classification form: a learned map, added to the queries of block 3 in
            the first group, resized to the semantic map. The published ImageNet weights have none.
        pad_small_map: See :class:`SwinBackbone`; None means False in the classification form,
            True otherwise, as in the published programs.
        **swin: Every argument of :class:`SwinBackbone` but ``patch_cfg``; ``patch_size`` is 4, and
            ``patch_norm`` concerns patch merging alone. The windows are ``window_size`` also in
            blocks 2 to 6.

    Raises:
        UserError: For arguments out of their range; each message names argument, value, rule.
    """

    def __init__(
        self,
        arch: None | str | Mapping = None,
        semantic_stage: int = 2,
        semantic_size: int = 3,
        key_windows: Sequence[int] | None = None,
        pad_mask: str = 'full',
        layer_scale_init_value: float = 1e-5,
        form: str = 'dense_prediction',
        semantic_token2: bool = False,
        pad_small_map: bool | None = None,
        **swin,
    ):
        check_choice('form', form, FORMS)
        check_choice('pad_mask', pad_mask, PAD_MASKS)
        if semantic_token2 and form != 'classification':
            raise UserError("semantic_token2=True: only form='classification' has it")
        check_number('layer_scale_init_value', layer_scale_init_value)
        check_counts(semantic_size=semantic_size)
        self._check_swin(swin)
        sizes = {name: swin.get(name) for name in ('embed_dims', 'depths', 'num_heads')}
        self._check_stage(semantic_stage, self._resolve_arch(arch, sizes)['depths'])
        windows: list[int] = []  # those of the blocks of the semantic stage

        def make_block(stage: int, block: int, cfg: dict) -> nn.Module:
            if stage != semantic_stage:
                return SwinBlock(**cfg)
            windows.append(cfg['window_size'])
            role = block_role(block, self.depths[stage])
            if role == 'plain':
                return SwinBlock(**cfg)
            reaches = resolve_key_windows(key_windows, form, cfg['window_size'], semantic_size)
            return make_semantic_block(
                role, form, semantic_size, reaches, float(layer_scale_init_value), cfg
            )

        def make_stage(
            stage: int, blocks: Sequence[nn.Module], downsample_cfg: dict | None
        ) -> SwinStage:
            if stage != semantic_stage:
                return SwinStage(blocks, downsample_cfg)
            if len(set(windows)) > 1:
                raise UserError(
                    f'stage_cfgs: blocks of stage {stage} have window_size '
                    f'{", ".join(map(str, sorted(set(windows))))}: must be the same, for its '
                    'semantic tokens stand for windows'
                )
            token_grid = None
            if semantic_token2:
                # Merging halves, rounding up.
                hw = (-(-length // 2**stage) for length in self.patch_resolution)
                token_grid = tuple(-(-length // windows[0]) * semantic_size for length in hw)
            return SemanticStage(
                blocks,
                downsample_cfg,
                windows[0],
                semantic_size,
                form,
                pad_mask,
                token_grid,
                self.widths[stage],
            )

        if pad_small_map is None:
            pad_small_map = form == 'dense_prediction'
        super().__init__(
            arch,
            pad_small_map=pad_small_map,
            make_block=make_block,
            make_stage=make_stage,
            make_stem=make_conv_stem,
            **swin,
        )
        self.semantic_stage = semantic_stage
        self.semantic_token2 = bool(semantic_token2)
        self.form = form
        self.key_windows = resolve_key_windows(key_windows, form, windows[0], semantic_size)

    @staticmethod
    def _check_swin(swin: Mapping) -> None:
        """Raises a UserError for arguments of Swin that this backbone does not have."""
        for name in ARGUMENTS:
            if name in swin:
                raise UserError(
                    f'{name}={swin[name]!r}: STViTSwin selects no positions and has '
                    'no keep ratios; remove it'
                )
        if swin.get('patch_size', 4) not in (4, (4, 4), [4, 4]):
            raise UserError(
                f'patch_size={swin["patch_size"]!r}: must be 4, what the two '
                'convolutions of the stem make'
            )
        if swin.get('patch_cfg'):
            raise UserError(
                f'patch_cfg={swin["patch_cfg"]!r}: STViTSwin has a convolutional '
                'stem, which takes no patch_cfg'
            )

    @staticmethod
    def _check_stage(semantic_stage: int, depths: Sequence[int]) -> None:
        """Raises a UserError unless the stage exists and holds a group."""
        if (
            not isinstance(semantic_stage, Integral)
            or isinstance(semantic_stage, bool)
            or not 0 <= semantic_stage < len(depths)
        ):
            raise UserError(
                f'semantic_stage={semantic_stage!r}: must be the index of a stage, '
                f'0 .. {len(depths) - 1}'
            )
        depth = depths[semantic_stage]
        if depth < GROUP:
            raise UserError(
                f'depths={depths}: stage {semantic_stage} has {depth} blocks, '
                f'too few for one group of {GROUP} '
                f'(semantic_stage={semantic_stage})'
            )

    # ------------------------------------------------------------------ training
    def _init_from_scratch(self) -> None:
        super()._init_from_scratch()
        if self.semantic_token2:
            trunc_normal_(self.stages[self.semantic_stage].semantic_token2, std=0.02)
