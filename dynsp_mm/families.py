"""One card of plain data for each family of backbones.

Creation, swapping, checkpoints, recording and messages read the cards, and the tests sweep over
them. A new family consists of a class in ``backbones/``, registered in mmengine's MODELS, of a card
here, and of a table in ``checkpoints/sources/`` for each program whose weights it takes. The cards
import no backbone: classes are found by their registered names.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch.nn as nn

from .errors import UserError

MIN_SIDE = 32  # pixels of an image for networks that halve it five times and do not pad
ALIASES = dict(t='tiny', s='small', b='base', l='large', xl='xlarge', h='huge', g='giant')
# Predictors and cheap paths, under the names that blocks and backbones of this package give them.
SPATIAL = r'token_predictors\.|.*\.fast_(path\.|gamma$)'


# ---------------------------------------------------------------------- the form of a card
@dataclass(frozen=True)
class Dense:
    """A dense class of OpenMMLab's libraries whose place a family takes.

    Args:
        cls: Registered name.
        defaults: Library -> those of its default arguments that are not the family's.
    """

    cls: str
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """Arguments that the presence of a name tells.

    Args:
        pattern: Regular expression of a whole name.
        present: Arguments where some name matches.
        absent: Arguments where none does.
    """

    pattern: str
    present: Mapping[str, Any] = field(default_factory=dict)
    absent: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """An argument that the shape of a tensor tells.

    Args:
        argument: Name of the argument.
        pattern: Regular expression of the tensor's whole name; where no name matches, the
            argument keeps its default.
        axis: Axis that is measured, of length n.
        rule: 'side', n itself; 'window', the window side whose position bias table has n rows; or
            'image', the image side whose map at stride 4 has n positions.
    """

    argument: str
    pattern: str
    axis: int
    rule: str


@dataclass(frozen=True)
class Split:
    """A tensor of a relative that goes into several of this family.

    Args:
        pattern: Regular expression of its whole name.
        into: Templates of the new names.
        shares: Share of the first axis that each new name gets, in order.
    """

    pattern: str
    into: tuple[str, ...]
    shares: tuple[int, ...]


@dataclass(frozen=True)
class Names:
    """Parameter names of a family, by which its state dicts are read.

    All patterns are regular expressions of the names of a backbone, without prefix.

    Args:
        stem: The weight whose first axis is the width of the first stage.
        block: Start of the names of a block; its groups are the number of the stage, where the
            family has several, and that of the block.
        source: Name of the kind of checkpoint that has these names, for messages. Families of
            the same names share it.
        signature: Start of a name that only such checkpoints have.
        needed: Starts of names of which no checkpoint may lack one.
        stem_names: Starts of further such names, which weights of a relative need not have.
        image: The weight that meets the image, whose second axis is the image's channels; None for
            the stem.
        mark: A name that tells the family from others with the same stem; None where none does.
        heads: A tensor of each attention and the axis that counts its heads; None for no heads.
        extra_norm: Start of a norm's name that follows every few blocks; its group is the number
            of the block.
        told: Arguments that names tell.
        measured: Arguments that shapes tell.
        may_lack: Names that a checkpoint may lack altogether, for its network has none of them.
        relatives_lack: The same, in checkpoints of :attr:`Family.relatives` alone.
        dropped: Names that are never loaded -> why.
        resized: Names whose tensors are interpolated to another size -> how: 'table', square
            (S * S, C); 'tokens', square (1, S * S, C); 'positions', the same to the model's
            ``patch_resolution``.
        splits: What becomes of the tensors of relatives.
        out_norm: Template of the output norm's name, from the number of its stage; None for none.
        sparse_stage: Stage that is sparse unless configured.
    """

    stem: str
    block: str
    source: str
    signature: str
    needed: tuple[str, ...]
    stem_names: tuple[str, ...] = ()
    image: str | None = None
    mark: str | None = None
    heads: tuple[str, int] | None = None
    extra_norm: str | None = None
    told: tuple[Told, ...] = ()
    measured: tuple[Measured, ...] = ()
    may_lack: tuple[str, ...] = ()
    relatives_lack: tuple[str, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    resized: Mapping[str, str] = field(default_factory=dict)
    splits: tuple[Split, ...] = ()
    out_norm: str | None = 'norm{}'
    sparse_stage: int = 2

    @property
    def image_weight(self) -> str:
        """The weight whose second axis is the image's channels."""
        return self.image or self.stem

    @property
    def out_norm_pattern(self) -> str:
        """Regular expression of the name of an output norm; its group is the stage."""
        return r'(\d+)'.join(map(re.escape, self.out_norm.split('{}')))


@dataclass(frozen=True, eq=False, repr=False)
class Family:
    """What is known of a family.

    Args:
        name: Name for ``create_backbone``, to which '_' and a size are added.
        cls: Name of the class in mmengine's MODELS.
        title: Name in messages.
        sizes: Name of a size -> its dict.
        size_keys: Keys of a size's dict -> what of an :class:`Arch` each is: 'width' (channels of
            the first stage), 'widths' (of each stage, doubling), 'depths', 'num_heads' or
            'extra_norm'.
        names: Parameter names.
        samples: Arguments of tiny networks that together have every parameter of the family.
        aliases: Short name of a size -> its name.
        size_is_arch: Whether a size goes under ``arch``; else its keys are arguments as well.
        more_size_keys: Whether a size's dict may hold other keys, which are ignored.
        dense: Classes whose place it takes in a config.
        unlike: Relatives whose place it cannot take -> why.
        relatives: Names of the families whose checkpoints it takes beside its own.
        sources: Modules that register the kinds of checkpoints of other programs, absolute or
            relative to ``dynsp_mm.checkpoints.sources``.
        pooled: Boolean argument and attribute by which it returns pooled vectors (B, C) instead
            of maps; None for none.
        strides: Pixels of an image's side to a position of each stage's map.
        min_side: Least side of an image in pixels, unless the class computes its own.
        spatial: Names of its predictors and cheap paths; None where it has none.
        semantic: Whether it works on semantic tokens, which can be drawn.
        ratios: What one number r of ``keep_ratios`` means: 'hierarchical' is (r, r - 0.2, ...),
            'geometric' (r, r^2, ...).
    """

    name: str
    cls: str
    title: str
    sizes: Mapping[str, Mapping[str, Any]]
    size_keys: Mapping[str, str]
    names: Names
    samples: tuple[Mapping[str, Any], ...]
    aliases: Mapping[str, str] = field(default_factory=lambda: ALIASES)
    size_is_arch: bool = True
    more_size_keys: bool = False
    dense: tuple[Dense, ...] = ()
    unlike: Mapping[str, str] = field(default_factory=dict)
    relatives: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    pooled: str | None = None
    strides: tuple[int, ...] = (4, 8, 16, 32)
    min_side: int = MIN_SIDE
    spatial: str | None = SPATIAL
    semantic: bool = False
    ratios: str = 'hierarchical'

    def __repr__(self) -> str:
        return f'Family({self.name})'

    @property
    def all_stages(self) -> tuple[int, ...]:
        """``out_indices`` of all stages."""
        return tuple(range(len(self.strides)))

    @property
    def maps(self) -> dict[str, Any]:
        """Arguments by which the class returns the maps of all stages."""
        pooled = {self.pooled: False} if self.pooled else {}
        return dict(out_indices=self.all_stages, **pooled)

    def size_name(self, text: str) -> str | None:
        """Name of a size from its name or alias in any case; None if there is none."""
        name = self.aliases.get(text.lower(), text.lower())
        return name if name in self.sizes else None


# ---------------------------------------------------------------------- the register
_FAMILIES: dict[str, Family] = {}


def register(card: Family) -> Family:
    """Adds a family.

    Raises:
        UserError: If one of its names is another family's.
    """
    for name in (card.name, card.cls, card.title, *(dense.cls for dense in card.dense)):
        other = find(name)
        if other is not None:
            raise UserError(f'family {card.name!r}: {name!r} belongs to {other.name!r} already')
    _FAMILIES[card.name] = card
    return card


def all_families() -> tuple[Family, ...]:
    """All cards, in the order of their registration."""
    return tuple(_FAMILIES.values())


def find(name: str) -> Family | None:
    """The family of that name, class, title or dense class; None if there is none."""
    for card in _FAMILIES.values():
        if name in (card.name, card.cls, card.title, *(dense.cls for dense in card.dense)):
            return card
    return None


def get(name: str) -> Family:
    """As :func:`find`.

    Raises:
        UserError: If there is none.
    """
    card = find(name)
    if card is None:
        raise UserError(f'family {name!r}: must be one of {", ".join(_FAMILIES)}')
    return card


def of(module: nn.Module | type) -> Family | None:
    """The family of a backbone or of its class, or of the nearest class it inherits from."""
    cls = module if isinstance(module, type) else type(module)
    cards = {card.cls: card for card in _FAMILIES.values()}
    return next((cards[base.__name__] for base in cls.__mro__ if base.__name__ in cards), None)


def takes_decisions(module: nn.Module) -> bool:
    """Whether a module is a backbone with predictors, by its own plan of sparsity.

    Adapters around a backbone, such as mmpretrain's ``LoRAModel``, hand on its attributes.
    """
    return bool(getattr(vars(module).get('plan'), 'gates', ()))


def named_like(names: Iterable[str]) -> Family | None:
    """The family with a stem among the names; of several, the one with a mark among them."""
    names = set(names)
    found = None
    for card in _FAMILIES.values():
        if card.names.stem in names:
            if card.names.mark is None:
                found = found or card
            elif any(re.fullmatch(card.names.mark, name) for name in names):
                return card
    return found


# ---------------------------------------------------------------------- what all cards tell
def resolve_size(family: str | Family, arch: str | Mapping[str, Any]) -> dict[str, Any]:
    """Size of a network as a dict, lists as tuples.

    Args:
        family: Card, or one of its names.
        arch: Name of a size, alias, or dict with the keys of a size.

    Raises:
        UserError: For an unknown name, a dict with other keys, or one whose entries for each
            stage differ in number.
    """
    card = family if isinstance(family, Family) else get(family)
    size: Any = arch
    if isinstance(arch, str):
        name = card.size_name(arch)
        if name is None:
            raise UserError(f'arch={arch!r}: must be one of {", ".join(card.sizes)}')
        size = card.sizes[name]
    keys = set(card.size_keys)
    given = set(size) if isinstance(size, Mapping) else set()
    if not keys <= given or (given > keys and not card.more_size_keys):
        exactly = '' if card.more_size_keys else 'exactly '
        raise UserError(
            f'arch={arch!r}: a dict needs {exactly}the keys {", ".join(card.size_keys)}'
        )
    per_stage = [
        key
        for key, meaning in card.size_keys.items()
        if meaning in ('depths', 'widths', 'num_heads')
    ]
    for key in per_stage:
        if not isinstance(size[key], (list, tuple)):
            raise UserError(f'{key}={size[key]!r}: must be a sequence with a number for each stage')
    if len({len(size[key]) for key in per_stage}) > 1:
        raise UserError(
            ' and '.join(f'{key}={size[key]!r}' for key in per_stage)
            + ': must have the same length'
        )
    return {key: tuple(size[key]) if key in per_stage else size[key] for key in card.size_keys}


def dense_classes() -> dict[str, Family]:
    """Name of a dense class -> the family that takes its place."""
    return {dense.cls: card for card in _FAMILIES.values() for dense in card.dense}


def unlike_classes() -> dict[str, str]:
    """Name of a dense class that no family can take the place of -> why."""
    return {cls: why for card in _FAMILIES.values() for cls, why in card.unlike.items()}


def sparse_class_names() -> tuple[str, ...]:
    """Names of the classes with spatially sparse blocks."""
    return tuple(card.cls for card in _FAMILIES.values() if card.spatial)


def how_to_make_sparse() -> str:
    """Advice of every message about a model without predictors."""
    *others, last = sparse_class_names()
    names = f'{", ".join(others)} or {last}' if others else last
    return f'give a {names} backbone keep_ratios below 1'


def is_spatial(name: str) -> bool:
    """Whether a parameter belongs to a predictor or a cheap path, by its name in any model."""
    return _spatial(tuple(card.spatial for card in _FAMILIES.values() if card.spatial))(name)


@lru_cache
def _spatial(patterns: tuple[str, ...]):
    """Test of names, compiled once for the cards that there are."""
    compiled = re.compile('|'.join(rf'(?:.*\.)?(?:{pattern})' for pattern in set(patterns)))
    return lambda name: bool(patterns) and compiled.match(name) is not None


# ---------------------------------------------------------------------- Swin
SWIN = {
    'tiny': dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    'small': dict(embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    'base': dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    'large': dict(embed_dims=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
}
# What mmdet's and mmseg's Swin is without arguments. Ours is mmpretrain's then, with its rules for
# small maps, norms and frozen stages, and with the last stage as its output.
MMDET_SWIN = dict(SWIN['tiny'], out_indices=(0, 1, 2, 3))
MASKED = 'it is pretrained on masked patches, whose mask its forward takes'
SWIN_BLOCK = r'stages\.(\d+)\.blocks\.(\d+)\.'
BIAS_TABLE = r'stages\.(\d+)\.blocks\.\d+\.attn\.w_msa\.relative_position_bias_table'
LOGIT_SCALE = r'stages\.(\d+)\.blocks\.\d+\.attn\.w_msa\.logit_scale'
QKV_BIAS = Told(r'.*\.(qkv\.bias|[qv]_bias)', dict(qkv_bias=True), dict(qkv_bias=False))
MASK_TOKEN = {'mask_token': 'stood for masked patches in pretraining'}
SWIN_DROPPED = {
    r'.*\.relative_(position_index|coords_table)': 'derived from the window size',
    r'.*\.attn_mask': 'derived from the map size',
    **MASK_TOKEN,
}
POSITIONS = Told('absolute_pos_embed', dict(use_abs_pos_embed=True))
SWIN_IMAGE = r'patch_embed\.projection\.weight'
SMALL_SWIN = dict(embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4))
SWIN_PROGRAMS = ('.swin', '.timm', '.torchvision', '.transformers')
SWIN_SOURCE = dict(source='OpenMMLab Swin', signature=r'stages\.\d+\.blocks\.\d+\.attn\.')

register(
    Family(
        name='dynamic_swin',
        cls='DynamicSwin',
        title='Swin',
        sizes=SWIN,
        size_keys=dict(embed_dims='width', depths='depths', num_heads='num_heads'),
        size_is_arch=False,
        dense=(Dense('SwinTransformer', dict(mmdet=MMDET_SWIN, mmseg=MMDET_SWIN)),),
        unlike={'SimMIMSwinTransformer': MASKED},
        sources=SWIN_PROGRAMS,
        min_side=1,
        samples=(
            dict(
                arch=SMALL_SWIN, keep_ratios=0.7, use_abs_pos_embed=True, out_indices=(0, 1, 2, 3)
            ),
        ),
        names=Names(
            stem='patch_embed.projection.weight',
            block=SWIN_BLOCK,
            **SWIN_SOURCE,
            needed=('stages.', 'token_predictors.'),
            stem_names=('patch_embed.',),
            heads=(BIAS_TABLE, 1),
            told=(QKV_BIAS, POSITIONS),
            measured=(
                Measured('in_channels', SWIN_IMAGE, 1, 'side'),
                Measured('window_size', BIAS_TABLE, 0, 'window'),
                Measured('pretrain_img_size', 'absolute_pos_embed', 1, 'image'),
            ),
            may_lack=(SPATIAL,),
            dropped=SWIN_DROPPED,
            resized={BIAS_TABLE: 'table', 'absolute_pos_embed': 'positions'},
        ),
    )
)


# ---------------------------------------------------------------------- Swin-V2
SWIN_V2 = {
    **{name: dict(sizes, extra_norm_every_n_blocks=0) for name, sizes in SWIN.items()},
    'huge': dict(
        embed_dims=352, depths=(2, 2, 18, 2), num_heads=(8, 16, 32, 64), extra_norm_every_n_blocks=6
    ),
    'giant': dict(
        embed_dims=512,
        depths=(2, 2, 42, 4),
        num_heads=(16, 32, 64, 128),
        extra_norm_every_n_blocks=6,
    ),
}

register(
    Family(
        name='dynamic_swin_v2',
        cls='DynamicSwinV2',
        title='Swin-V2',
        sizes=SWIN_V2,
        size_keys=dict(
            embed_dims='width',
            depths='depths',
            num_heads='num_heads',
            extra_norm_every_n_blocks='extra_norm',
        ),
        dense=(Dense('SwinTransformerV2'),),
        sources=SWIN_PROGRAMS,
        min_side=1,
        samples=(
            dict(
                arch=dict(SMALL_SWIN, extra_norm_every_n_blocks=1),
                keep_ratios=0.7,
                use_abs_pos_embed=True,
                out_indices=(0, 1, 2, 3),
            ),
        ),
        names=Names(
            stem='patch_embed.projection.weight',
            block=SWIN_BLOCK,
            mark=LOGIT_SCALE,
            **SWIN_SOURCE,
            needed=('stages.', 'token_predictors.'),
            stem_names=('patch_embed.',),
            heads=(LOGIT_SCALE, 0),
            extra_norm=r'stages\.\d+\.blocks\.(\d+)\.norm3\.weight',
            told=(QKV_BIAS, POSITIONS),
            # No weight depends on the windows, which therefore stay those of the default.
            measured=(
                Measured('in_channels', SWIN_IMAGE, 1, 'side'),
                Measured('img_size', 'absolute_pos_embed', 1, 'image'),
            ),
            may_lack=(SPATIAL,),
            dropped=SWIN_DROPPED,
            resized={'absolute_pos_embed': 'positions'},
        ),
    )
)


# ---------------------------------------------------------------------- ConvNeXt
CONVNEXT = {
    'atto': dict(depths=(2, 2, 6, 2), channels=(40, 80, 160, 320)),
    'femto': dict(depths=(2, 2, 6, 2), channels=(48, 96, 192, 384)),
    'pico': dict(depths=(2, 2, 6, 2), channels=(64, 128, 256, 512)),
    'nano': dict(depths=(2, 2, 8, 2), channels=(80, 160, 320, 640)),
    'tiny': dict(depths=(3, 3, 9, 3), channels=(96, 192, 384, 768)),
    'small': dict(depths=(3, 3, 27, 3), channels=(96, 192, 384, 768)),
    'base': dict(depths=(3, 3, 27, 3), channels=(128, 256, 512, 1024)),
    'large': dict(depths=(3, 3, 27, 3), channels=(192, 384, 768, 1536)),
    'xlarge': dict(depths=(3, 3, 27, 3), channels=(256, 512, 1024, 2048)),
    'huge': dict(depths=(3, 3, 27, 3), channels=(352, 704, 1408, 2816)),
}
CONVNEXT_BLOCK = r'stages\.(\d+)\.(\d+)\.'

register(
    Family(
        name='dynamic_convnext',
        cls='DynamicConvNeXt',
        title='ConvNeXt',
        sizes=CONVNEXT,
        size_keys=dict(depths='depths', channels='widths'),
        more_size_keys=True,  # as mmpretrain's
        dense=(Dense('ConvNeXt'),),
        unlike={'SparseConvNeXt': MASKED},
        sources=('.convnext', '.timm', '.torchvision', '.transformers'),
        pooled='gap_before_final_norm',
        samples=(
            dict(
                arch=dict(depths=(1, 1, 4, 1), channels=(16, 32, 64, 128)),
                keep_ratios=0.7,
                use_grn=True,
                out_indices=(0, 1, 2, 3),
                gap_before_final_norm=False,
            ),
        ),
        names=Names(
            stem='downsample_layers.0.0.weight',
            block=CONVNEXT_BLOCK,
            source='OpenMMLab ConvNeXt',
            signature=r'stages\.\d+\.\d+\.depthwise_conv\.',
            needed=('stages.', 'downsample_layers.', 'token_predictors.'),
            told=(
                Told(r'.*\.grn\..*', dict(use_grn=True), dict(use_grn=False)),
                Told(CONVNEXT_BLOCK + 'gamma', absent=dict(layer_scale_init_value=0.0)),
            ),
            measured=(Measured('in_channels', r'downsample_layers\.0\.0\.weight', 1, 'side'),),
            may_lack=(SPATIAL, r'.*\.grn\.'),
            dropped=MASK_TOKEN,
        ),
    )
)


# ---------------------------------------------------------------------- STViT-R
register(
    Family(
        name='stvit_swin',
        cls='STViTSwin',
        title='STViT-R Swin',
        sizes=SWIN,
        size_keys=dict(embed_dims='width', depths='depths', num_heads='num_heads'),
        size_is_arch=False,
        relatives=('dynamic_swin',),
        sources=('.stvit', *SWIN_PROGRAMS),
        min_side=1,
        spatial=None,
        semantic=True,
        samples=(
            dict(
                arch=dict(SMALL_SWIN, depths=(1, 1, 6, 1)),
                use_abs_pos_embed=True,
                out_indices=(0, 1, 2, 3),
            ),
            dict(
                arch=dict(SMALL_SWIN, depths=(1, 1, 6, 1)),
                form='classification',
                semantic_token2=True,
            ),
        ),
        names=Names(
            stem='patch_embed.layers.1.conv.weight',
            image='patch_embed.layers.0.conv.weight',
            block=SWIN_BLOCK,
            **SWIN_SOURCE,
            needed=('stages.',),
            stem_names=('patch_embed.',),
            heads=(BIAS_TABLE, 1),
            told=(
                QKV_BIAS,
                POSITIONS,
                Told(r'.*\.semantic_token2', dict(form='classification', semantic_token2=True)),
            ),
            measured=(
                Measured('in_channels', r'patch_embed\.layers\.0\.conv\.weight', 1, 'side'),
                Measured('window_size', BIAS_TABLE, 0, 'window'),
                Measured('pretrain_img_size', 'absolute_pos_embed', 1, 'image'),
            ),
            may_lack=(r'.*\.semantic_token2$',),
            relatives_lack=(r'.*\.layer_scale_[12]$',),
            dropped=SWIN_DROPPED,
            resized={
                BIAS_TABLE: 'table',
                'absolute_pos_embed': 'positions',
                r'.*\.semantic_token2': 'tokens',
            },
            # Blocks among semantic tokens have queries of their own and no position bias.
            splits=(
                Split(r'(.*\.attn)\.w_msa\.qkv\.(weight|bias)', (r'\1.q.\2', r'\1.kv.\2'), (1, 2)),
                Split(r'(.*\.attn)\.w_msa\.proj\.(weight|bias)', (r'\1.proj.\2',), (1,)),
            ),
        ),
    )
)
