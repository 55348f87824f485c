"""The architecture and the config that a state dict tells."""

import pytest
import torch
from mmengine.registry import MODELS

from dynsp_mm import DynamicSwin, families
from dynsp_mm.checkpoints import backbone_config, find_arch

SWIN = dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 4))


def test_architecture_is_read_off():
    for card in families.all_families():
        for name in ('tiny', 'small', 'base'):
            arch = find_arch(MODELS.get(card.cls)(name).state_dict())
            assert arch.name == f'{card.title} {name}' and arch.card is card
    small, tiny = (find_arch(DynamicSwin(a).state_dict()) for a in ('small', 'tiny'))
    assert small.differences(tiny) == ['depths (2, 2, 18, 2) (here (2, 2, 6, 2))']
    assert small._replace(num_heads=(2, 4, 8, 16)).differences(small) == [
        'heads (2, 4, 8, 16) (here (3, 6, 12, 24))'
    ]
    assert find_arch({}) is None
    assert find_arch(DynamicSwin(**SWIN).state_dict()).name == 'Swin'
    with pytest.raises(ValueError, match='is the checkpoint complete'):
        backbone_config({'norm3.weight': torch.ones(1)})
