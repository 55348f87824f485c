import pytest
import torch

from dynsp_mm.training import keep_ratio_loss


def test_definition():
    masks = [torch.tensor([[1., 0, 0, 0], [1, 1, 1, 1]])[..., None],
             torch.tensor([[1., 1], [0, 0]])[..., None]]
    expected = (((0.25 - 0.5)**2 + (1 - 0.5)**2) / 2 + ((1 - 0.3)**2 + 0.3**2) / 2) / 2
    assert abs(keep_ratio_loss(masks, [0.5, 0.3]).item() - expected) < 1e-6


def test_needs_a_ratio_for_each_mask():
    with pytest.raises(ValueError, match='1 masks and 2 ratios'):
        keep_ratio_loss([torch.ones(1, 2, 1)], [0.5, 0.5])
    with pytest.raises(ValueError, match='0 masks'):
        keep_ratio_loss([], [])
