"""Backbones without configs."""

from collections.abc import Mapping
from typing import Any

from .. import families
from ..checkpoints import load_pretrained
from . import DynamicConvNeXt, DynamicSwin, DynamicSwinV2, STViTSwin
from .base import Backbone

FAMILIES = {
    'dynamic_swin': (DynamicSwin, families.SWIN),
    'dynamic_swin_v2': (DynamicSwinV2, families.SWIN_V2),
    'dynamic_convnext': (DynamicConvNeXt, families.CONVNEXT),
    'stvit_swin': (STViTSwin, families.SWIN),
}


def create_backbone(name: str, checkpoint: str | None = None, **kwargs: Any) -> Backbone:
    """Builds a backbone by name, with initial or loaded weights, in training mode.

    ::

        backbone = dynsp_mm.create_backbone('dynamic_swin_t', keep_ratios=0.7,
                                            checkpoint='swin_tiny_patch4_window7_224.pth')
        maps = backbone.eval()(images)      # a tuple of (B, C, H, W), one for each stage

    Args:
        name: Family and size: 'dynamic_swin', 'dynamic_swin_v2', 'dynamic_convnext' or
            'stvit_swin', then '_' and an ``arch`` of that class, such as 'tiny', or 't', 's', 'b',
            'l', 'xl', 'h', 'g' for short.
        checkpoint: File or URL of weights for it, dense or sparse, in any form that ``init_cfg``
            takes: this package's, the authors', official Swin or ConvNeXt, or of mmdet, mmseg or
            mmpretrain. What a dense one lacks starts new.
        **kwargs: Arguments of the class. Unlike its defaults, all stages are returned
            (``out_indices``), as maps also by ConvNeXt (``gap_before_final_norm=False``).

    Raises:
        ValueError: For an unknown name, an argument out of its range, or a checkpoint that cannot
            be had or does not fit.
    """
    cls, arguments = parse_name(name, kwargs)
    backbone = cls(**arguments)
    backbone.init_weights()
    if checkpoint is not None:
        load_pretrained(backbone, checkpoint, name='checkpoint')
    return backbone


def parse_name(name: str, kwargs: Mapping[str, Any]) -> tuple[type[Backbone], dict[str, Any]]:
    """Class and arguments of what :func:`create_backbone` builds.

    Raises:
        ValueError: For an unknown name.
    """
    family, _, size = name.rpartition('_') if isinstance(name, str) else ('', '', '')
    if family not in FAMILIES:
        raise ValueError(
            f'name={name!r}: must be one of {", ".join(FAMILIES)}, then "_" and a '
            "size, such as 'dynamic_swin_t'"
        )
    cls, sizes = FAMILIES[family]
    if 'arch' in kwargs:
        raise ValueError(f'arch={kwargs["arch"]!r}: the size is part of name={name!r}')
    arch = families.ALIASES.get(size, size)
    if arch not in sizes:
        raise ValueError(f'name={name!r}: the sizes of {family} are {", ".join(sizes)}')
    defaults: dict[str, Any] = dict(arch=arch, out_indices=(0, 1, 2, 3))
    if cls is DynamicConvNeXt:
        defaults['gap_before_final_norm'] = False
    return cls, {**defaults, **kwargs}
