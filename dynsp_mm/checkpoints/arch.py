"""Reads the architecture off a state dict that has our names."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from .. import families

STEMS = {
    'patch_embed.projection.weight': 'Swin',
    'patch_embed.layers.1.conv.weight': 'STViT-R Swin',
    'downsample_layers.0.0.weight': 'ConvNeXt',
}
BIAS_TABLE = r'stages\.(\d+)\.blocks\.\d+\.attn\.w_msa\.relative_position_bias_table'
LOGIT_SCALE = r'stages\.(\d+)\.blocks\.\d+\.attn\.w_msa\.logit_scale'
EXTRA_NORM = r'stages\.\d+\.blocks\.(\d+)\.norm3\.weight'
SIZES = {'ConvNeXt': families.CONVNEXT, 'Swin-V2': families.SWIN_V2}


class Arch(NamedTuple):
    """What tells one backbone from another.

    Attributes:
        family: One of the values of :data:`STEMS`, or 'Swin-V2'.
        width: Channels of the first stage.
        depths: Blocks of each stage.
        num_heads: Heads of each stage; empty for ConvNeXt.
        extra_norm: Swin-V2: every how many blocks a norm follows; 0 for none.
    """

    family: str
    width: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    extra_norm: int = 0

    @property
    def settings(self) -> dict[str, object]:
        """The same as arguments of our backbones."""
        if self.family == 'ConvNeXt':
            return dict(
                arch=dict(
                    depths=self.depths,
                    channels=tuple(self.width * 2**i for i in range(len(self.depths))),
                )
            )
        sizes = dict(embed_dims=self.width, depths=self.depths, num_heads=self.num_heads)
        if self.family == 'Swin-V2':
            return dict(arch=dict(sizes, extra_norm_every_n_blocks=self.extra_norm))
        return sizes

    @property
    def name(self) -> str:
        """Such as 'Swin tiny', or the family alone for sizes that have no name."""
        for name, sizes in SIZES.get(self.family, families.SWIN).items():
            width = sizes.get('embed_dims') or sizes['channels'][0]
            if (width, sizes['depths']) == (self.width, self.depths):
                return f'{self.family} {name}'
        return self.family

    def differences(self, other: 'Arch') -> list[str]:
        """What keeps weights of this from ``other``, as ``name value (other's value)``.

        Swin's blocks fit those of STViT-R, so that the family may differ in that direction.
        """
        names = dict(
            family='family',
            width='channels',
            depths='depths',
            num_heads='heads',
            extra_norm='blocks to each extra norm',
        )
        if (self.family, other.family) == ('Swin', 'STViT-R Swin'):
            del names['family']
        return [
            f'{text} {getattr(self, name)} (here {getattr(other, name)})'
            for name, text in names.items()
            if getattr(self, name) and getattr(self, name) != getattr(other, name)
        ]


def find_arch(state_dict: Mapping[str, Tensor]) -> Arch | None:
    """The architecture, or None where the stem or the stages are missing.

    Args:
        state_dict: Names and tensors of a backbone, without prefix.
    """
    stem = next((name for name in STEMS if name in state_dict), None)
    blocks: dict[int, int] = {}
    heads: dict[int, int] = {}
    for name, value in state_dict.items():
        match = re.match(r'stages\.(\d+)\.(?:blocks\.)?(\d+)\.', name)
        if match:
            stage, block = map(int, match.groups())
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
        for pattern, axis in ((BIAS_TABLE, 1), (LOGIT_SCALE, 0)):
            match = re.fullmatch(pattern, name)
            if match:
                heads[int(match[1])] = value.shape[axis]
    if stem is None or not blocks:
        return None
    family = 'Swin-V2' if any(re.fullmatch(LOGIT_SCALE, k) for k in state_dict) else STEMS[stem]
    normed = [int(m[1]) + 1 for m in (re.fullmatch(EXTRA_NORM, k) for k in state_dict) if m]
    return Arch(
        family,
        state_dict[stem].shape[0],
        tuple(blocks[i] for i in sorted(blocks)),
        tuple(heads[i] for i in sorted(heads)),
        min(normed, default=0),
    )


def backbone_config(state_dict: Mapping[str, Tensor]) -> dict[str, object]:
    """Config of one of our backbones that has a place for each of these names.

    A dense Swin or ConvNeXt gets the default sparse part, which the file cannot fill.

    Args:
        state_dict: Names and tensors of a backbone, without prefix.

    Raises:
        ValueError: If the stem or a stage is missing.
    """
    arch = find_arch(state_dict)
    indices = sorted(int(m[1]) for m in (re.match(r'norm(\d)\.weight', k) for k in state_dict) if m)
    if (
        arch is None
        or max(indices, default=0) >= len(arch.depths)
        or arch.family != 'ConvNeXt'
        and len(arch.num_heads) != len(arch.depths)
    ):
        raise ValueError(
            'the weights of the backbone lack its stem or a stage; is the checkpoint complete?'
        )
    config: dict[str, object] = dict(arch.settings, out_indices=tuple(indices))
    if arch.family == 'ConvNeXt':
        config.update(
            type='DynamicConvNeXt',
            gap_before_final_norm=False,
            use_grn=any('.grn.' in k for k in state_dict),
        )
        if not any(k.endswith('.gamma') and '.grn.' not in k for k in state_dict):
            config['layer_scale_init_value'] = 0.0
    else:
        if arch.family == 'Swin-V2':
            # No weight depends on the windows, which therefore stay those of the default.
            config.update(type='DynamicSwinV2')
        else:
            table = next(v for k, v in state_dict.items() if re.fullmatch(BIAS_TABLE, k))
            config.update(window_size=(round(table.shape[0] ** 0.5) + 1) // 2)
        config.update(qkv_bias=any(k.endswith(('.qkv.bias', '.q_bias')) for k in state_dict))
        embedding = state_dict.get('absolute_pos_embed')
        if embedding is not None:
            config.update(
                use_abs_pos_embed=True, pretrain_img_size=4 * round(embedding.shape[1] ** 0.5)
            )
    if arch.family == 'STViT-R Swin':
        token = next((v for k, v in state_dict.items() if k.endswith('.semantic_token2')), None)
        config['type'] = 'STViTSwin'
        if token is not None:
            config.update(form='classification', semantic_token2=True)
        return config
    config.setdefault('type', 'DynamicSwin')
    blocks = sorted(
        {
            tuple(map(int, m.groups()))
            for m in (
                re.match(r'stages\.(\d+)\.(?:blocks\.)?(\d+)\.fast_path\.', k) for k in state_dict
            )
            if m
        }
    )
    if blocks:
        count = len({k.split('.')[1] for k in state_dict if k.startswith('token_predictors.')})
        stage, first = blocks[0]
        # Where the later predictors stand cannot be told from the names, nor does it change them.
        config.update(
            prune_stage=stage,
            prune_blocks=tuple(range(first, first + count)),
            keep_ratios=(1.0,) * count,
        )
    elif len(arch.depths) > 2 and arch.depths[2] > 3:
        config['keep_ratios'] = 0.7
    return config
