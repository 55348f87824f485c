"""Fitting a state dict to our backbones: what is new, what is an error."""

import pytest
import torch
import torch.nn.functional as F

from dynsp_mm import DynamicConvNeXt, DynamicSwin, STViTSwin
from dynsp_mm.checkpoints import fit_state_dict

STVIT = dict(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 4))


def small(**kwargs):
    return DynamicSwin(
        arch=dict(embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4)), **kwargs
    )


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


def test_another_kind_of_network_is_said():
    arch = dict(depths=(1, 1, 4, 1), channels=(8, 8, 16, 16))
    file = DynamicConvNeXt(arch, use_grn=True, layer_scale_init_value=0.0).state_dict()
    with pytest.raises(ValueError, match='is of a network with use_grn=True, layer_scale_init_v'):
        fit_state_dict(file, DynamicConvNeXt(arch))
    vit = {'cls_token': torch.ones(1, 1, 16), 'norm.weight': torch.ones(16)}
    with pytest.raises(ValueError, match='no weights for this .*another kind .*such as cls_token'):
        fit_state_dict(vit, small())


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


def test_windows_that_differ_between_stages_are_named():
    """Tables of all blocks are of another size for another window; of some for another network."""
    model = DynamicSwin(arch=dict(STVIT), window_size=7, keep_ratios=None)
    for sizes, count in (((12, 12, 12, 12), 0), ((7, 7, 14, 7), 1)):
        other = DynamicSwin(arch=dict(STVIT), window_size=sizes, keep_ratios=None)
        notes = fit_state_dict(other.state_dict(), model).repairs.notes()
        assert len(notes) == count and all('window_size' in note for note in notes)
