"""Backbones without configs."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS

from .. import families
from ..checkpoints import load_pretrained
from ..errors import UserError
from .base import Backbone


def create_backbone(name: str, checkpoint: str | None = None, **kwargs: Any) -> Backbone:
    """Builds a backbone by name, with initial or loaded weights, in training mode.

    ::

        backbone = dynsp_mm.create_backbone('dynamic_swin_t', keep_ratios=0.7,
                                            checkpoint='swin_tiny_patch4_window7_224.pth')
        maps = backbone.eval()(images)      # a tuple of (B, C, H, W), one for each stage

    Args:
        name: Family and size: 'dynamic_swin', 'dynamic_swin_v2', 'dynamic_convnext',
            'stvit_swin' or another name of :mod:`dynsp_mm.families`, then '_' and an ``arch`` of
            that class, such as 'tiny', or 't', 's', 'b', 'l', 'xl', 'h', 'g' for short.
        checkpoint: File or URL of weights for it, dense or sparse, in any form that ``init_cfg``
            takes: this package's, the authors', or of timm, torchvision, mmdet, mmseg or
            mmpretrain. What a dense one lacks starts new.
        **kwargs: Arguments of the class. Unlike its defaults, all stages are returned
            (``out_indices``), as maps also by ConvNeXt (``gap_before_final_norm=False``).

    Raises:
        UserError: For an unknown name, an argument out of its range, or a checkpoint that cannot
            be had or does not fit.
    """
    cls, arguments = parse_name(name, kwargs)
    backbone = cls(**arguments)
    backbone.init_weights()
    if checkpoint is not None:
        load_pretrained(backbone, checkpoint, name='checkpoint')
    return backbone


def names_a_family(name: str) -> bool:
    """Whether a text begins as a name for :func:`create_backbone` does: a family, then '_'."""
    return name.rpartition('_')[0] in (card.name for card in families.all_families())


def parse_name(name: str, kwargs: Mapping[str, Any]) -> tuple[type[Backbone], dict[str, Any]]:
    """Class and arguments of what :func:`create_backbone` builds.

    Raises:
        UserError: For an unknown name.
    """
    if not isinstance(name, str) or not names_a_family(name):
        known = ', '.join(card.name for card in families.all_families())
        raise UserError(
            f'name={name!r}: must be one of {known}, then "_" and a '
            "size, such as 'dynamic_swin_t'"
        )
    family, _, size = name.rpartition('_')
    card = families.get(family)
    if 'arch' in kwargs:
        raise UserError(f'arch={kwargs["arch"]!r}: the size is part of name={name!r}')
    arch = card.size_name(size)
    if arch is None:
        raise UserError(f'name={name!r}: the sizes of {family} are {", ".join(card.sizes)}')
    return MODELS.get(card.cls), {'arch': arch, **card.maps, **kwargs}
