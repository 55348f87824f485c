"""Inputs of any number of channels and any kind of values as images that can be drawn on."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.model import ImgDataPreprocessor

from dynsp_mm.visualization import as_rgb, draw_keep_map, draw_regions, draw_weights, input_as_image
from dynsp_mm.visualization.panels import MAX_PANEL_SIDE, enlarge


def bytes_of(channels):
    image = torch.randint(0, 256, (channels, 9, 7), dtype=torch.uint8)
    image[:, 0, 0], image[:, 0, 1] = 0, 255
    return image


@pytest.mark.parametrize('values', [1, 3])
def test_a_grey_image(values):
    image = bytes_of(1)
    preprocessor = ImgDataPreprocessor(mean=[115.0], std=[57.0])
    if values == 3:  # those of mmpretrain may have three values for one channel
        preprocessor = SimpleNamespace(mean=torch.full((3, 1, 1), 115.0), std=None)
        x = image.float()
    else:
        x = preprocessor(dict(inputs=[image]))['inputs'][0]
    grey = image.permute(1, 2, 0).expand(9, 7, 3)
    assert np.array_equal(input_as_image(x, preprocessor), grey.numpy())


@pytest.mark.parametrize('channels', [4, 6, 13])
def test_of_more_than_three_channels_the_first_three(channels):
    image = bytes_of(channels)
    for preprocessor, flip in (
        (None, True),
        (torch.nn.Identity(), True),
        (ImgDataPreprocessor(mean=None, std=None), True),
        (SimpleNamespace(mean=torch.zeros(channels), std=torch.ones(channels), to_rgb=True), False),
        (SimpleNamespace(mean=[0.0], std=[1.0]), True),
        (SimpleNamespace(data_preprocessor=SimpleNamespace(to_rgb=True)), False),
    ):
        first = image[:3].flip(0) if flip else image[:3]  # files are read as BGR
        assert np.array_equal(input_as_image(image, preprocessor), first.permute(1, 2, 0).numpy())


def test_of_two_channels_the_mean():
    x = torch.stack([torch.full((4, 5), 100.0), torch.full((4, 5), 200.0)])
    assert (input_as_image(x, None) == 150).all()


@pytest.mark.parametrize('scale,shift', [(1 / 255, 0), (257, 0), (1 / 60, -2), (10, -1500)])
def test_values_that_are_not_of_bytes_are_stretched(scale, shift):
    """Floats in [0, 1], uint16, standardised values, temperatures."""
    image = bytes_of(3).float()
    expected = image.flip(0).permute(1, 2, 0).numpy()
    got = input_as_image(image * scale + shift, None)
    assert abs(got.astype(int) - expected).max() <= 1


def test_values_that_augmentations_overshoot_are_cut():
    image = torch.tensor([[-30.0, 0.0], [128.0, 400.0]]).expand(3, 2, 2)
    assert input_as_image(image, None)[..., 0].tolist() == [[0, 0], [128, 255]]
    assert (input_as_image(torch.zeros(3, 4, 4), None) == 0).all()
    assert (input_as_image(torch.full((3, 4, 4), float('nan')), None) == 0).all()


def test_drawings_take_any_image():
    keep = np.array([[True, False]])
    image = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
    assert as_rgb(image) is not None and np.array_equal(as_rgb(image), image)
    for form in (image[..., 0], image[..., :1], image[..., :2], np.dstack([image, image]) * 1.0):
        for draw, on in (
            (draw_keep_map, keep),
            (draw_regions, keep * 1),
            (draw_weights, keep * 1.0),
        ):
            out = draw(form, on)
            assert out.shape == (20, 40, 3) and out.dtype == np.uint8 and out.std() > 10


@pytest.mark.parametrize('shape', [(24, 256), (4, 300), (1, 1), (3000, 30)])
def test_strips_are_not_enlarged_beyond_measure(shape):
    image, size = enlarge(np.zeros((*shape, 3), np.uint8), (0, 0))
    assert image.shape[:2] == size and max(size) <= max(MAX_PANEL_SIDE, *shape)
    assert size[0] * shape[1] == size[1] * shape[0]
