import numpy as np
import pytest
import torch

from dynsp_mm import SemanticAttention
from dynsp_mm.visualization import draw_regions, draw_semantic_attention, draw_weights


def attention():
    """Two images; in the second, token (0, 1) takes the right half, token (0, 0) the left."""
    weights = torch.zeros(2, 1, 2, 4, 6)
    weights[0, 0, 0] = 1 / 24
    weights[1, 0, 0, :, :3] = weights[1, 0, 1, :, 3:] = 1 / 12
    return SemanticAttention('stages.2.blocks.2', 'refine', weights)


def test_regions():
    regions = attention().regions
    assert regions.shape == (2, 4, 6) and regions[0].unique().tolist() == [0]
    assert regions[1, :, :3].unique().tolist() == [0] and regions[1, :, 3:].unique().tolist() == [1]
    image = np.full((40, 60, 3), 100, np.uint8)
    out = draw_regions(image, regions[1].numpy())
    assert out.shape == image.shape and out.dtype == np.uint8
    assert (out[:, 30] == 255).all()  # the border between the two
    left, right = out[5, 10].astype(int), out[5, 50].astype(int)
    assert (out[:, :30] == left).all() and (out[:, 31:] == right).all()
    assert abs(left - right).sum() > 50
    assert (draw_regions(image, regions[0].numpy()) == left).all()


def test_received_is_the_sum_over_tokens_and_strongest_the_largest():
    torch.testing.assert_close(attention().received[1], torch.full((4, 6), 1 / 12))
    both = SemanticAttention('b', 'recover', torch.tensor([0.7, 0.3]).view(1, 1, 2, 1, 1))
    assert both.received.item() == pytest.approx(1) and both.strongest.item() == pytest.approx(0.7)
    image = np.full((40, 60, 3), 100, np.uint8)
    weights = np.zeros((4, 6), np.float32)
    weights[0, 0] = 0.3
    out = draw_weights(image, weights)
    assert out[2, 2, 0] > out[2, 2, 2] and out[30, 50, 2] > out[30, 50, 0]  # red, blue
    for odd in (weights * 0, np.full((4, 6), np.nan, np.float32)):
        assert draw_weights(image, odd).shape == image.shape


def test_rows_of_panels():
    image = np.full((32, 48, 3), 200, np.uint8)
    one = draw_semantic_attention(image, [attention()], 1)
    assert one.shape == (32 * 8 + 18, 48 * 8 * 3, 3)
    two = draw_semantic_attention(image, [attention()] * 2, 0, (20, 30))
    assert two.shape == (2 * (240 + 18), 360 * 3, 3)
    other = draw_semantic_attention(image, [attention()], 0)
    assert not np.array_equal(one, other)  # each image of the batch gets its own
