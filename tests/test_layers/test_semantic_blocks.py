"""What the blocks record is what they compute."""

import pytest
import torch

from dynsp_mm.layers import (
    ConvStem,
    CrossAttention,
    GlobalBlock,
    InnerNeighbourhoodBlock,
    NeighbourhoodBlock,
)
from dynsp_mm.ops import pool_windows

C = 8
COMMON = dict(embed_dims=C, num_heads=1, layer_scale_init_value=0.5)


def blocks(hw):
    """Each kind of block with arguments on an image map of a size."""
    image = torch.randn(2, *hw, C)
    semantic = pool_windows(image, 7, 3)
    return dict(
        generate=(NeighbourhoodBlock(3, 7, 14, **COMMON), (semantic, image)),
        release=(
            NeighbourhoodBlock(3, 7, 14, **COMMON),
            (semantic, image, tuple(-side % 7 for side in hw)),
        ),
        local=(NeighbourhoodBlock(3, 3, 3, **COMMON), (semantic, semantic)),
        recover=(NeighbourhoodBlock(7, 3, 27, **COMMON), (image, semantic)),
        self=(GlobalBlock(**COMMON), (semantic,)),
        refine=(GlobalBlock(**COMMON), (semantic + 1, semantic, image)),
        inner=(InnerNeighbourhoodBlock(3, 7, 10, **COMMON), (semantic, image)),
    )


KINDS = tuple(blocks((14, 14)))


@pytest.fixture(params=[(14, 14), (15, 9), (5, 20)], ids=str)
def hw(request):
    return request.param


@pytest.mark.parametrize('kind', KINDS)
def test_attention_is_that_of_the_forward(kind, hw):
    """A value that is 1 at one key and 0 elsewhere comes out as the weight of that key."""
    block, args = blocks(hw)[kind]
    keys = args[0] if kind == 'self' else args[2 if kind == 'refine' else 1]
    weights = block.attention(*args)
    assert weights.shape == (*args[0].shape[:3], *keys.shape[1:3])
    assert (weights >= 0).all() and (weights.sum((3, 4)) < 1 + 1e-5).all()
    with torch.no_grad():
        # Values are the keys' places, the projection passes them on, the MLP adds nothing.
        block.attn.proj.weight.copy_(torch.eye(C))
        block.attn.proj.bias.zero_()
        block.layer_scale_1.fill_(1.0)
        block.layer_scale_2.zero_()
    H, W = keys.shape[1:3]
    for position in [(0, 0), (H - 1, W - 1), (H // 2, 1)]:
        got = forward_with_marked_value(block, args, keys, position)
        torch.testing.assert_close(got, weights[:, :, :, position[0], position[1]])


def forward_with_marked_value(block, args, keys, position):
    """Channel 0 of what is attended when the values are 0 but for a 1 at one key."""
    seen = []

    def mark(module, inputs, output):
        tokens = inputs[0].shape[-2]
        values = output[..., C:].zero_()
        last_map = (
            inputs[0].dim() == 4
            and inputs[0].shape[1:3] == keys.shape[1:3]
            and not (isinstance(block, InnerNeighbourhoodBlock) and not seen)
        )
        seen.append(1)
        if last_map:
            values[:, position[0], position[1], 0] = 1
        elif inputs[0].dim() == 3:  # global: the last map's tokens are last
            values[
                :,
                tokens - keys.shape[1] * keys.shape[2] + position[0] * keys.shape[2] + position[1],
                0,
            ] = 1
        return torch.cat([output[..., :C], values], -1)

    handle = block.attn.kv.register_forward_hook(mark)
    try:
        with torch.no_grad():
            out = block(*args)
    finally:
        handle.remove()
    residual = 0 if isinstance(block, InnerNeighbourhoodBlock) else args[0]
    return (out - residual)[..., 0]


@pytest.mark.parametrize('kind', KINDS)
def test_checkpointing_changes_nothing(kind, hw):
    block, args = blocks(hw)[kind]
    args = [
        arg.requires_grad_() if isinstance(arg, torch.Tensor) and arg.is_leaf else arg
        for arg in args
    ]
    gradients = []
    for block.with_cp in (False, True):
        block.zero_grad()
        block(*args).square().sum().backward()
        gradients.append([p.grad.clone() for p in block.parameters()])
    for a, b in zip(*gradients):
        assert a.abs().sum() > 0
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('kind', KINDS)
def test_scale(kind, hw):
    """Weights of a scale of 0 are uniform, those of the default are not."""
    block, args = blocks(hw)[kind]
    default = block.attention(*args)[0, 0, 0]
    block.attn.scale = 0.0
    for weights, uniform in ((default, False), (block.attention(*args)[0, 0, 0], True)):
        seen = weights[weights > 0]  # by one query: others see other numbers of keys
        assert (seen.max() - seen.min() < 1e-6) == uniform
    assert CrossAttention(C, 2, qk_scale=0.3).scale == 0.3
    assert CrossAttention(C, 2).scale == 0.5


def test_drop_path_and_dropout():
    block = NeighbourhoodBlock(3, 7, 14, **COMMON, drop_path=0.999999).train()
    semantic, image = torch.randn(4, 3, 3, C), torch.randn(4, 7, 7, C)
    assert torch.equal(block(semantic, image), semantic)
    # The classification form's tokens are the attention: dropping it would drop them.
    _, args = blocks((14, 14))['inner']
    block = InnerNeighbourhoodBlock(3, 7, 10, **COMMON, drop_path=0.999999).train()
    attended = block(*args)  # its MLP is dropped, its attention is not
    block.drop_path = torch.nn.Identity()
    block.layer_scale_2.data.zero_()
    assert torch.equal(attended, block(*args)) and attended.abs().sum() > 0
    for kind in ('generate', 'self', 'inner'):
        block, args = blocks((14, 14))[kind]
        block.attn.attn_drop = 0.9
        assert not torch.equal(block.train()(*args), block(*args))
        assert torch.equal(block.eval()(*args), block(*args))
    with pytest.raises(ValueError, match='num_heads=3: must divide the channels, 8'):
        CrossAttention(C, 3)


@pytest.mark.parametrize('size', [(32, 32), (33, 65), (127, 98)])
def test_stem(size):
    stem = ConvStem(3, 16, (224, 98))
    assert stem.init_out_size == (56, 25)
    tokens, hw = stem(torch.randn(2, 3, *size))
    assert tuple(hw) == tuple(-(-side // 4) for side in size)
    assert tokens.shape == (2, hw[0] * hw[1], 16)
    with pytest.raises(ValueError, match='embed_dims=15: .* even'):
        ConvStem(3, 15)
