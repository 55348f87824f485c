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


@pytest.mark.parametrize('title', ['Swin', 'Swin-V2', 'STViT-R Swin'])
def test_the_size_of_position_embeddings(title):
    card = families.get(title)
    cls = MODELS.get(card.cls)
    model = cls(**{**card.samples[0], 'img_size': 96})
    assert model.absolute_pos_embed.shape[1] == 24 * 24
    config = backbone_config(model.state_dict())
    again = MODELS.build(config)
    assert again.absolute_pos_embed.shape == model.absolute_pos_embed.shape


def test_where_the_sparse_stage_is():
    model = DynamicSwin(arch=SWIN, keep_ratios=(0.7, 0.5), prune_blocks=(2, 4))
    config = backbone_config(model.state_dict())
    assert (config['prune_stage'], config['prune_blocks']) == (2, (2, 3))
    assert config['keep_ratios'] == (1.0, 1.0)
    assert backbone_config(DynamicSwin(arch=SWIN).state_dict())['keep_ratios'] == 0.7
    shallow = DynamicSwin(arch=dict(SWIN, depths=(1, 1, 2, 1)))
    assert 'keep_ratios' not in backbone_config(shallow.state_dict())
