"""Images smaller than the steps of a network: what the dense classes take, the sparse ones do."""

import pytest
import torch
from mmdet.models import SwinTransformer as MmdetSwin
from mmpretrain.models import ConvNeXt, SwinTransformer, SwinTransformerV2

from dynsp_mm import DynamicConvNeXt, DynamicSwin, DynamicSwinV2, STViTSwin

ALL = (0, 1, 2, 3)
SWIN = dict(embed_dims=16, depths=(1, 2, 4, 1), num_heads=(1, 1, 2, 4))
PRETRAIN = dict(img_size=64, pad_small_map=True, out_indices=ALL)
V2 = dict(arch=dict(SWIN, extra_norm_every_n_blocks=0), window_size=7, **PRETRAIN)
# Dense class, ours, arguments of both.
PAIRS = {
    'mmdet': (MmdetSwin, DynamicSwin, dict(SWIN, out_indices=ALL)),
    'mmdet, patches of 8': (
        MmdetSwin,
        DynamicSwin,
        dict(SWIN, out_indices=ALL, patch_size=8, strides=(8, 2, 2, 2)),
    ),
    'mmpretrain': (SwinTransformer, DynamicSwin, dict(arch=SWIN, **PRETRAIN)),
    'V2': (SwinTransformerV2, DynamicSwinV2, V2),
}
SIZES = [(1, 1), (3, 5), (4, 4), (24, 64), (31, 33), (4, 70)]


@pytest.fixture(params=PAIRS)
def pair(request):
    dense, ours, kwargs = PAIRS[request.param]
    torch.manual_seed(0)
    dense = dense(**kwargs)
    dense.eval()  # returns nothing in mmpretrain's
    return dense, lambda **more: ours(**kwargs, **more)


@pytest.mark.parametrize('size', SIZES)
def test_dense_maps_of_small_images(pair, size):
    dense, ours = pair
    model = ours()
    model.load_state_dict(dense.state_dict(), strict=False)
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        for got, expected in zip(model.eval()(image), dense(image)):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('selection', ['topk', 'random', dict(type='threshold', threshold=0.5)])
@pytest.mark.parametrize('ratios', [(0.7, 0.4, 0.1), (1e-6, 1e-6, 1e-6)])
def test_sparse_maps_of_small_images(pair, selection, ratios):
    dense, ours = pair
    model = ours(keep_ratios=ratios, prune_blocks=(0, 1, 2), selection=selection)
    for size in SIZES[:4:3]:
        for batch in (1, 2):
            image = torch.randn(batch, 3, *size)
            with torch.no_grad():
                shapes = [out.shape for out in dense(image)]
                maps = model.eval()(image)
                prepared = model.prepare_for_inference('eager')(image)
            trained = model.train()(image)
            for outs in (maps, prepared, trained):
                assert [out.shape for out in outs] == shapes
                assert all(out.isfinite().all() for out in outs)
            if selection != 'random':
                for got, expected in zip(prepared, maps):
                    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
            sum(out.sum() for out in trained).backward()


def test_without_padding_of_small_maps_mmpretrains_own_refuses():
    """Ours pads them, as the authors' program does, and has no shift there."""
    kwargs = dict(arch=SWIN, img_size=64, out_indices=ALL)
    dense, ours = SwinTransformer(**kwargs), DynamicSwin(**kwargs)
    image = torch.randn(1, 3, 24, 64)
    with pytest.raises(AssertionError, match='pad_small_map'):
        dense(image)
    assert [tuple(out.shape[2:]) for out in ours(image)] == [(6, 16), (3, 8), (2, 4), (1, 2)]


@pytest.mark.parametrize('form', ['dense_prediction', 'classification'])
@pytest.mark.parametrize('size', SIZES)
def test_semantic_tokens_of_small_images(form, size):
    model = STViTSwin(arch=dict(SWIN, depths=(1, 1, 6, 1)), form=form, out_indices=ALL)
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        maps = model.eval()(image)
        prepared = model.prepare_for_inference('eager')(image)
    trained = model.train()(image)
    for i in ALL:
        shape = (2, 16 * 2**i, *(-(-side // (4 * 2**i)) for side in size))
        assert maps[i].shape == trained[i].shape == shape
        torch.testing.assert_close(prepared[i], maps[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('patch', [2, 4])
def test_convnext_pads_nothing(patch):
    """A map that cannot be halved is an error in both classes, from the same side on."""
    kwargs = dict(
        arch=dict(depths=(1, 1, 4, 1), channels=(16, 32, 64, 128)),
        stem_patch_size=patch,
        out_indices=ALL,
        gap_before_final_norm=False,
    )
    dense, ours = ConvNeXt(**kwargs), DynamicConvNeXt(**kwargs, keep_ratios=0.7)
    least = 8 * patch
    assert ours.min_side == least
    for size in ((least, least), (least, 2 * least + 1)):
        image = torch.randn(2, 3, *size)
        assert [out.shape for out in ours(image)] == [out.shape for out in dense(image)]
    image = torch.randn(2, 3, 4 * least, least - 1)
    with pytest.raises(RuntimeError, match='[Kk]ernel size'):
        dense(image)
    with pytest.raises(ValueError, match=f'each side must have at least {least} pixels'):
        ours(image)
