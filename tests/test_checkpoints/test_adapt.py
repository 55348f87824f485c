"""Loading into our backbones: what is repaired, what is an error."""

import pytest
import torch
import torch.nn.functional as F
from golden import load, relative_error, release, stvit_input

from dynsp_mm import DynamicSwin, STViTSwin
from dynsp_mm.checkpoints import (
    fit_state_dict,
    load_from_anywhere,
    load_pretrained,
    write_checkpoint,
)

STVIT = dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 4))


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


def test_an_incomplete_checkpoint_is_an_error():
    state_dict = small().state_dict()
    del state_dict['stages.2.blocks.1.ffn.layers.1.bias']
    with pytest.raises(
        ValueError,
        match=r'1 tensors that this DynamicSwin \(Swin\) needs are not '
        'there, such as stages.2.blocks.1.ffn.layers.1.bias',
    ):
        fit_state_dict(state_dict, small())
    # Output norms that a classifier does not have, and sparse parts, may be missing.
    fit = fit_state_dict(small().state_dict(), small(keep_ratios=0.7, out_indices=(0, 3)))
    assert fit.missing == ['norm0.weight', 'norm0.bias'] and len(fit.new) > 20


def test_only_a_dense_network_lacks_the_new_parts():
    """Parts of them missing, or those of an STViT-R file, is an incomplete checkpoint."""
    sparse = small(keep_ratios=0.7)
    for missing in ('token_predictors.1.norm.bias', 'stages.2.blocks.2.fast_path.linear.weight'):
        state_dict = sparse.state_dict()
        del state_dict[missing]
        with pytest.raises(ValueError, match=f'not there, such as {missing}'):
            fit_state_dict(state_dict, sparse)
    stvit = STViTSwin(**STVIT)
    for part in ('layer_scale_2', 'patch_embed.layers.0.bn', 'patch_embed.layers.0.conv'):
        state_dict = {k: v for k, v in stvit.state_dict().items() if part not in k}
        with pytest.raises(ValueError, match=f'not there, such as .*{part}'):
            fit_state_dict(state_dict, stvit)
    state_dict = {k: v for k, v in stvit.state_dict().items() if 'num_batches' not in k}
    assert len(fit_state_dict(state_dict, stvit).missing) == 2  # older files have none


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


def test_a_sparse_checkpoint_is_no_stvit():
    with pytest.raises(
        ValueError,
        match=r'a checkpoint of STViT-R Swin, another arch than this '
        r'DynamicSwin \(Swin\): family STViT-R Swin \(here Swin\)',
    ):
        fit_state_dict(STViTSwin(**STVIT).state_dict(), DynamicSwin(**STVIT))


def test_another_shape_is_named():
    with pytest.raises(
        ValueError,
        match='ffn.layers.0.0.weight has shape .64, 16., this '
        r'DynamicSwin \(Swin\) needs \(32, 16\)',
    ):
        fit_state_dict(small().state_dict(), small(mlp_ratio=2))


def test_dense_swin_starts_stvit():
    """Queries, keys and values of dense blocks are split; the stem starts new."""
    dense, model = DynamicSwin(**STVIT), STViTSwin(**STVIT)
    fit = fit_state_dict(dense.state_dict(), model)
    assert all('layer_scale' in name for name in fit.new)
    assert all(name.startswith('patch_embed.layers') for name in fit.missing)
    tables = [name for name in fit.unused if name.endswith('relative_position_bias_table')]
    assert len(tables) == 5  # of the blocks among semantic tokens
    assert all(name.startswith('patch_embed.') for name in set(fit.unused) - set(tables))
    # The same through mmengine's load_from, which calls load_state_dict.
    model.load_state_dict(dense.state_dict(), strict=False)
    qkv = dense.stages[2].blocks[3].attn.w_msa.qkv
    attention = model.stages[2].blocks[3].attn
    assert torch.equal(torch.cat([attention.q.weight, attention.kv.weight]), qkv.weight)
    assert torch.equal(torch.cat([attention.q.bias, attention.kv.bias]), qkv.bias)
    assert torch.equal(attention.proj.weight, dense.stages[2].blocks[3].attn.w_msa.proj.weight)
    assert torch.equal(
        model.stages[2].blocks[0].attn.w_msa.qkv.weight,
        dense.stages[2].blocks[0].attn.w_msa.qkv.weight,
    )


def test_semantic_token2_of_another_size():
    source = STViTSwin(arch=STVIT, form='classification', semantic_token2=True)
    source.init_weights()
    model = STViTSwin(arch=STVIT, form='classification', semantic_token2=True, img_size=448)
    fit = fit_state_dict(source.state_dict(), model)
    token = source.stages[2].semantic_token2.view(1, 6, 6, 64).permute(0, 3, 1, 2)
    expected = F.interpolate(token, (12, 12), mode='bicubic').flatten(2).transpose(1, 2)
    torch.testing.assert_close(fit.state_dict['stages.2.semantic_token2'], expected)


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
