"""Reads the architecture off a state dict that has our names."""
import re
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

from torch import Tensor

from .. import archs

STEMS = {'patch_embed.projection.weight': 'Swin', 'patch_embed.layers.1.conv.weight': 'STViT-R Swin',
         'downsample_layers.0.0.weight': 'ConvNeXt'}
BIAS_TABLE = r'stages\.(\d+)\.blocks\.\d+\.attn\.w_msa\.relative_position_bias_table'


class Arch(NamedTuple):
    """What tells one backbone from another.

    Attributes:
        family: One of the values of :data:`STEMS`.
        width: Channels of the first stage.
        depths: Blocks of each stage.
        num_heads: Heads of each stage; empty for ConvNeXt.
    """
    family: str
    width: int
    depths: Tuple[int, ...]
    num_heads: Tuple[int, ...]

    @property
    def settings(self) -> Dict[str, object]:
        """The same as arguments of our backbones."""
        if self.family == 'ConvNeXt':
            return dict(arch=dict(depths=self.depths, channels=tuple(
                self.width * 2**i for i in range(len(self.depths)))))
        return dict(embed_dims=self.width, depths=self.depths, num_heads=self.num_heads)

    @property
    def name(self) -> str:
        """Such as 'Swin tiny', or the family alone for sizes that have no name."""
        known = archs.CONVNEXT if self.family == 'ConvNeXt' else archs.SWIN
        for name, sizes in known.items():
            width = sizes.get('embed_dims') or sizes['channels'][0]
            if (width, sizes['depths']) == (self.width, self.depths):
                return f'{self.family} {name}'
        return self.family

    def differences(self, other: 'Arch') -> List[str]:
        """What differs, as ``name value (other's value)``."""
        names = dict(width='channels', depths='depths', num_heads='heads')
        return [f'{text} {getattr(self, name)} (here {getattr(other, name)})'
                for name, text in names.items()
                if getattr(self, name) and getattr(self, name) != getattr(other, name)]


def find_arch(state_dict: Mapping[str, Tensor]) -> Optional[Arch]:
    """The architecture, or None where the stem or the stages are missing.

    Args:
        state_dict: Names and tensors of a backbone, without prefix.
    """
    stem = next((name for name in STEMS if name in state_dict), None)
    blocks: Dict[int, int] = {}
    heads: Dict[int, int] = {}
    for name, value in state_dict.items():
        match = re.match(r'stages\.(\d+)\.(?:blocks\.)?(\d+)\.', name)
        if match:
            stage, block = map(int, match.groups())
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
        match = re.fullmatch(BIAS_TABLE, name)
        if match:
            heads[int(match[1])] = value.shape[1]
    if stem is None or not blocks:
        return None
    return Arch(STEMS[stem], state_dict[stem].shape[0], tuple(blocks[i] for i in sorted(blocks)),
                tuple(heads[i] for i in sorted(heads)))
