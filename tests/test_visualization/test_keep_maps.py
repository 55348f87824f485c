from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.model import ImgDataPreprocessor

from dynsp_mm.sparsity import Decision
from dynsp_mm.visualization import draw_decisions, draw_keep_map, input_as_image


def test_input_as_image_undoes_the_preprocessor():
    image = torch.randint(0, 256, (3, 9, 7), dtype=torch.uint8)  # BGR
    for swap in (True, False):
        preprocessor = ImgDataPreprocessor(
            mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], bgr_to_rgb=swap
        )
        x = preprocessor(dict(inputs=[image]))['inputs'][0]
        assert np.array_equal(
            input_as_image(x, preprocessor), image.flip(0).permute(1, 2, 0).numpy()
        )


@pytest.mark.parametrize('name', ['_channel_conversion', 'channel_conversion', 'to_rgb'])
def test_names_of_the_swap(name):
    """Of mmengine, of mmseg 1.2 and of mmpretrain."""
    x = torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1)
    assert input_as_image(x, SimpleNamespace(**{name: True})).tolist() == [[[10, 20, 30]]]
    assert input_as_image(x, SimpleNamespace(**{name: False})).tolist() == [[[30, 20, 10]]]


def test_fast_regions_are_dimmed():
    image = np.full((20, 40, 3), 200, np.uint8)
    keep = np.array([[True, False]])
    out = draw_keep_map(image, keep)
    assert out.shape == image.shape and out.dtype == np.uint8
    assert (out[5, 5] == 200).all() and (out[5, 30] == 70).all()


def test_panels():
    image = np.zeros((32, 48, 3), np.uint8)
    decision = Decision(
        torch.zeros(2, 6),
        (2, 3),
        0.5,
        slow=torch.tensor([0, 6, 7]),
        fast=torch.tensor([1, 2, 3, 4, 5, 8, 9, 10, 11]),
    )
    # Small images are enlarged, 8 and 12 times here, to 240 px or more.
    assert draw_decisions(image, [decision] * 3, 1).shape == (32 * 8 + 18, 48 * 8 * 4, 3)
    assert draw_decisions(image, [decision], 0, (20, 30)).shape == (240 + 18, 360 * 2, 3)
    # Each image of the batch gets its own map: the first keeps one position, the second two.
    bright = np.full((32, 48, 3), 200, np.uint8)
    shares = [(draw_decisions(bright, [decision], i)[30:, 384:] == 200).mean() for i in range(2)]
    assert shares[1] > 1.7 * shares[0] > 0
    image = np.zeros((256, 384, 3), np.uint8)
    assert draw_decisions(image, [decision], 0, (250, 300)).shape == (250 + 18, 600, 3)
