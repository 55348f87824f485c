"""Loading into our backbones: what is repaired, what is an error."""

import pytest
import torch
import torch.nn.functional as F
from golden import load, relative_error, release, stvit_input
from mmengine.model import PretrainedInit

from dynsp_mm import DynamicSwin, STViTSwin
from dynsp_mm.checkpoints import (
    is_pretrained,
    load_from_anywhere,
    load_pretrained,
    write_checkpoint,
)


def small(**kwargs):
    return DynamicSwin(
        arch=dict(embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4)), **kwargs
    )


def test_loading_repairs_what_differs(tmp_path):
    """Other windows and position embeddings are interpolated, old names translated."""
    source = small(window_size=7, use_abs_pos_embed=True, img_size=64)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.normal_()
    weights = {'backbone.' + k: v for k, v in source.state_dict().items()}
    weights['backbone.norm.weight'] = weights.pop('backbone.norm3.weight') + 1
    weights['backbone.stages.0.blocks.0.attn.w_msa.relative_position_index'] = torch.zeros(49, 49)
    torch.save(dict(state_dict=weights), tmp_path / 'a.pth')
    model = small(window_size=5, use_abs_pos_embed=True, img_size=(96, 64), keep_ratios=0.7)
    load_pretrained(model, str(tmp_path / 'a.pth'))
    assert torch.equal(model.norm3.weight, weights['backbone.norm.weight'])
    name = 'stages.2.blocks.0.attn.w_msa.relative_position_bias_table'
    table = weights['backbone.' + name].T.reshape(1, 2, 13, 13)
    expected = F.interpolate(table, (9, 9), mode='bicubic').reshape(2, 81).T
    torch.testing.assert_close(model.get_parameter(name), expected)
    embedding = weights['backbone.absolute_pos_embed'].reshape(1, 16, 16, 16).permute(0, 3, 1, 2)
    expected = F.interpolate(embedding, (24, 16), mode='bicubic').flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.absolute_pos_embed, expected)


def test_errors_of_pretrained(tmp_path):
    path = str(tmp_path / 'a.pth')
    torch.save(small().state_dict(), path)
    wide = DynamicSwin(arch=dict(embed_dims=32, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4)))
    deep = DynamicSwin(arch=dict(embed_dims=16, depths=(1, 1, 5, 1), num_heads=(1, 1, 2, 4)))
    for model, text in (
        (wide, r'channels 16 \(here 32\)'),
        (deep, r'depths \(1, 1, 4, 1\) \(here \(1, 1, 5, 1\)\)'),
    ):
        with pytest.raises(
            ValueError,
            match='checkpoint of Swin, another arch than this '
            r'DynamicSwin \(Swin\): ' + text,
        ):
            load_pretrained(model, path)
    with pytest.raises(ValueError, match=r"init_cfg.checkpoint='no.pth' cannot be loaded"):
        load_pretrained(small(), 'no.pth')
    with pytest.raises(ValueError, match="nothing under the prefix 'neck.'"):
        load_pretrained(small(), path, 'neck')
    torch.save({'conv1.weight': torch.zeros(1)}, path)
    with pytest.raises(ValueError, match='no weights for this DynamicSwin'):
        load_pretrained(small(), path)


def test_what_the_runner_loads(tmp_path):
    """Whole models of every form; heads come along."""
    weights = {'backbone.' + k: v for k, v in release('stvit_dense').items()}
    weights['roi_head.fc.bias'] = torch.ones(2)
    path = str(tmp_path / 'author.pth')
    torch.save(dict(state_dict=weights, meta=dict(epoch=3)), path)
    loaded = load_from_anywhere(path)['state_dict']
    assert 'backbone.stages.2.blocks.1.attn.kv.bias' in loaded and 'roi_head.fc.bias' in loaded
    ours = {'backbone.' + k: v for k, v in small().state_dict().items()}
    for suffix in ('.pth', '.safetensors'):
        path = str(tmp_path / f'ours{suffix}')
        write_checkpoint(ours, 'test', path)
        loaded = load_from_anywhere(path)
        assert set(loaded['state_dict']) == set(ours)
    torch.save(
        dict(state_dict=ours, ema_state_dict={'steps': torch.tensor(1)}),
        path := str(tmp_path / 'ema.pth'),
    )
    assert 'ema_state_dict' in load_from_anywhere(path)  # for the hook that averages weights


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_release_is_named_in_a_config(suffix, tmp_path):
    """init_cfg converts; the result is the published network."""
    golden = load('stvit_dense')
    config, case = golden['config'], golden['cases'][1]
    weights = release('stvit_dense')
    path = tmp_path / f'release{suffix}'
    if suffix == '.pth':
        torch.save(dict(model=weights, epoch=299), path)
    else:
        from safetensors.torch import save_file

        save_file(weights, path)
    model = STViTSwin(
        embed_dims=config['embed_dim'],
        depths=config['depths'],
        num_heads=config['num_heads'],
        out_indices=(0, 1, 2, 3),
        pad_mask='release',
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    model.init_weights()
    with torch.no_grad():
        maps = model.eval()(stvit_input(case['input']))
    assert relative_error(maps[3], case['release'][1]) < 1e-5


class OwnInit(PretrainedInit):
    """An initializer of a user, who reads files in his own way."""


@pytest.mark.parametrize(
    'kind',
    ['Pretrained', 'PretrainedInit', 'mmengine.Pretrained', PretrainedInit, OwnInit, 'Xavier'],
)
def test_what_names_a_checkpoint(kind, tmp_path):
    reads = kind not in (OwnInit, 'Xavier')
    start = dict(type=kind, checkpoint=str(tmp_path / 'no.pth'))
    assert is_pretrained(start) == reads
    model = DynamicSwin(embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4), init_cfg=start)
    if reads:
        with pytest.raises(ValueError, match='init_cfg.checkpoint=.*no.pth does not exist'):
            model.init_weights()
    assert not is_pretrained(None) and not is_pretrained({}) and not is_pretrained('Pretrained')
