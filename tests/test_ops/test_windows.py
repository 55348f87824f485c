import math

import pytest
import torch

from dynsp_mm.ops import (
    cyclic_shift_mask,
    log_offsets,
    partition_windows,
    plan_windows,
    relative_position_index,
    reverse_windows,
    window_attention,
)


@pytest.mark.parametrize('hw', [(7, 7), (14, 21), (8, 20), (3, 5), (1, 1), (50, 76)])
@pytest.mark.parametrize('window,shift', [(7, 0), (7, 3), (4, 2), (1, 0)])
def test_reverse_undoes_partition(hw, window, shift):
    x = torch.randn(2, *hw, 3)
    windows = partition_windows(x, window, shift)
    count = -(-hw[0] // window) * -(-hw[1] // window)
    assert windows.shape == (2 * count, window * window, 3)
    assert torch.equal(reverse_windows(windows, window, shift, hw), x)


@pytest.mark.parametrize('hw', [(14, 14), (9, 20), (21, 8)])
def test_mask_separates_what_the_shift_brought_together(hw):
    window, shift = 7, 3
    # Coordinates of each position; padding continues the map.
    Hp, Wp = (-(-s // window) * window for s in hw)
    rows, cols = torch.meshgrid(torch.arange(Hp), torch.arange(Wp), indexing='ij')
    coords = torch.stack([rows, cols], -1)[None].float()
    shifted = partition_windows(coords, window, shift)
    near = (shifted[:, :, None] - shifted[:, None]).abs().max(-1)[0] < window
    mask = cyclic_shift_mask(hw, window, shift, torch.device('cpu')).squeeze(1)
    assert torch.equal(mask == 0, near)
    assert set(mask.unique().tolist()) <= {-100.0, 0.0}


def test_mask_of_a_lone_window_still_has_a_seam():
    mask = cyclic_shift_mask((7, 7), 7, 3, torch.device('cpu')).squeeze()
    region = (torch.arange(7) >= 4).long()
    region = (region[:, None] * 2 + region[None]).flatten()
    assert torch.equal(mask == 0, region[:, None] == region[None])


def test_mask_made_in_inference_mode_serves_training():
    with torch.inference_mode():
        mask = cyclic_shift_mask((23, 29), 7, 3, torch.device('cpu'))
    assert not mask.is_inference()


def test_relative_position_index():
    index = relative_position_index(3)
    assert index.shape == (9, 9)
    assert index[0, 0] == index[4, 4] == 12  # offset (0, 0) is the middle of the 5 x 5 table
    assert index[0, 8] == 0 and index[8, 0] == 24


def test_attention_equals_its_definition():
    q, k, v = torch.randn(3, 8, 2, 9, 4)
    bias, mask = torch.randn(2, 9, 9), torch.randn(4, 1, 9, 9)
    logits = q @ k.transpose(-1, -2) * 0.3 + bias + mask.repeat(2, 1, 1, 1)
    expected = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(window_attention(q, k, v, bias, mask, 0.3), expected)


@pytest.mark.parametrize('window,unit_window', [(8, 0), (16, 8), (2, 1), (1, 0)])
def test_log_offsets_stand_where_the_index_points(window, unit_window):
    table, index = log_offsets(window, unit_window), relative_position_index(window)
    for i, j in torch.randint(window**2, (20, 2)).tolist():
        for axis, steps in enumerate((i // window - j // window, i % window - j % window)):
            unit = max(1, (unit_window or window) - 1)
            expected = math.copysign(math.log(1 + 8 * abs(steps) / unit, 8), steps)
            assert float(table[index[i, j], axis]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    'hw,window,shift',
    [((14, 21), 7, 0), ((14, 21), 7, 3), ((9, 13), 4, 2), ((16, 9), 7, 3), ((3, 5), 7, 3)],
)
@pytest.mark.parametrize('batch', [1, 3])
def test_plan_has_the_windows_of_a_shifted_map(hw, window, shift, batch):
    plan, n = plan_windows(batch, hw, window, shift, torch.device('cpu')), window**2
    tokens = batch * hw[0] * hw[1]
    assert torch.equal(torch.cat([plan.inner, plan.border]).sort().values, torch.arange(tokens))
    numbers = torch.arange(1.0, tokens + 1).view(batch, *hw, 1)
    windows = partition_windows(numbers, window, shift).squeeze(-1)
    border = torch.zeros(len(plan.mask) * n)
    border[plan.places] = plan.border + 1.0
    inner = (plan.inner + 1.0).view(-1, n)
    expected = sorted(map(tuple, windows.tolist()))
    assert sorted(map(tuple, inner.tolist() + border.view(-1, n).tolist())) == expected
    if shift:
        masks = cyclic_shift_mask(hw, window, shift, torch.device('cpu')).repeat(batch, 1, 1, 1)
        by_window = {tuple(w): m for w, m in zip(windows.tolist(), masks)}
        for numbers, mask in zip(border.view(-1, n).tolist(), plan.mask):
            assert torch.equal(mask, by_window[tuple(numbers)])
        assert all(not by_window[tuple(numbers)].any() for numbers in inner.tolist())
    else:
        assert not plan.mask.any()
