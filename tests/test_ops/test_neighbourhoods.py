"""Neighbourhood attention against a plain reference that cuts first and projects every copy."""

import pytest
import torch
import torch.nn.functional as F

from dynsp_mm import ops
from dynsp_mm.ops import neighbourhoods

OWN, HEADS, C = 7, 2, 8


def reference(queries, tokens, kv, own, reach, mask=None):
    """Pads the tokens, cuts each window's neighbourhood, projects it, attends."""
    B, gh, gw, n, _ = queries.shape
    H, W = tokens.shape[1:3]
    left, right = (reach - own) // 2, (reach - own + 1) // 2
    padded = F.pad(tokens, (0, 0, left, gw * own - W + right, left, gh * own - H + right))
    out = []
    for b in range(B):
        for i in range(gh):
            for j in range(gw):
                cut = padded[b, i * own : i * own + reach, j * own : j * own + reach].flatten(0, 1)
                k, v = kv(cut).view(-1, 2, HEADS, C // HEADS).permute(1, 2, 0, 3)
                q = queries[b, i, j].view(n, HEADS, -1).transpose(0, 1)
                logits = q @ k.transpose(1, 2) * 0.5
                if mask is not None:
                    logits = logits.masked_fill(~mask[i * gw + j, 0], float('-inf'))
                out.append((logits.softmax(-1) @ v).transpose(0, 1).flatten(1))
    return torch.stack(out)


@pytest.mark.parametrize('copies', [0.01, 4, 1000], ids=['windows', 'rows', 'whole'])
@pytest.mark.parametrize('corner', [None, 'release'])
@pytest.mark.parametrize('size', [(14, 14), (15, 19), (14, 9), (3, 30), (22, 7)])
@pytest.mark.parametrize('own,reach', [(7, 14), (7, 21), (7, 8), (3, 27), (3, 3)])
def test_equals_cutting_first(own, reach, size, corner, copies, monkeypatch):
    monkeypatch.setattr(neighbourhoods, 'MAX_COPIES', copies)
    B, n = 2, 5
    grid = tuple(-(-side // own) for side in size)
    tokens, queries = torch.randn(B, *size, C), torch.randn(B, *grid, n, C)
    kv = torch.nn.Linear(C, 2 * C)
    if corner:
        corner = tuple(-side % own for side in size)
    whole = (ops.neighbourhood_span(own, reach),) * 2
    mask = ops.neighbourhood_mask(size, grid, whole, corner, tokens.device)
    expected = reference(queries, tokens, kv, own, reach, mask)
    spans = whole
    if corner is None:  # what is masked everywhere is not even cut
        spans = tuple(
            ops.neighbourhood_span(own, reach, count, length) for count, length in zip(grid, size)
        )
        mask = ops.neighbourhood_mask(size, grid, spans, corner, tokens.device)
    args = (queries.view(-1, n, C), kv(tokens), kv.bias, grid, spans, HEADS, 0.5, mask)
    torch.testing.assert_close(ops.neighbourhood_attention(*args), expected)
    weights = ops.neighbourhood_attention(*args, weights=True)
    assert weights.shape == (B * grid[0] * grid[1], n, spans[0].reach * spans[1].reach)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))


def test_spans():
    assert ops.neighbourhood_span(7, 14) == (7, 3, 14)  # 3 before, 4 after
    assert ops.neighbourhood_span(3, 27) == (3, 12, 27)
    assert ops.neighbourhood_span(7, 14).start(2) == 11
    # One window: what lies outside the map is left off. Many: all of it is needed somewhere.
    assert ops.neighbourhood_span(7, 14, 1, 5) == (7, 0, 5)
    assert ops.neighbourhood_span(3, 27, 2, 6) == (3, 3, 9)
    assert ops.neighbourhood_span(3, 27, 12, 36) == (3, 12, 27)
    for own, reach in ((7, 14), (7, 21), (3, 27), (7, 7)):
        for length in range(1, 60):
            count = -(-length // own)
            whole = ops.neighbourhood_span(own, reach)
            trimmed = ops.neighbourhood_span(own, reach, count, length)
            for i in range(count):
                inside = [
                    p for p in range(whole.start(i), whole.start(i) + reach) if 0 <= p < length
                ]
                kept = range(trimmed.start(i), trimmed.start(i) + trimmed.reach)
                assert set(inside) <= set(kept)


def test_images_and_dropout_do_not_mix():
    tokens, queries = torch.randn(3, 15, 9, C), torch.randn(3 * 6, 4, C)
    kv = torch.cat([tokens, tokens], -1)
    args = (torch.zeros(2 * C), (3, 2), (ops.neighbourhood_span(7, 14),) * 2, HEADS, 0.5)
    whole = ops.neighbourhood_attention(queries, kv, *args)
    for i in range(3):
        alone = ops.neighbourhood_attention(queries[i * 6 : i * 6 + 6], kv[i : i + 1], *args)
        torch.testing.assert_close(whole[i * 6 : i * 6 + 6], alone)
    assert not torch.allclose(whole, ops.neighbourhood_attention(queries, kv, *args, dropout=0.5))


@pytest.mark.parametrize('size', [(14, 14), (15, 19), (1, 8)])
def test_full_mask_is_the_map(size):
    grid = tuple(-(-side // 7) for side in size)
    mask = ops.neighbourhood_mask(
        size, grid, (ops.neighbourhood_span(7, 21),) * 2, None, torch.device('cpu')
    )
    inside = torch.zeros(grid[0] * 7 + 14, grid[1] * 7 + 14, dtype=torch.bool)
    inside[7 : 7 + size[0], 7 : 7 + size[1]] = True
    for w in range(grid[0] * grid[1]):
        i, j = divmod(w, grid[1])
        assert torch.equal(
            mask[w, 0, 0].view(21, 21), inside[i * 7 : i * 7 + 21, j * 7 : j * 7 + 21]
        )


def released(grid, rows, columns, own, reach):
    """The published mask, with its slices."""
    mask = torch.zeros(grid[0] * own, grid[1] * own)
    mask[-rows:, -columns:] = -1000
    left, right = (reach - own) // 2, (reach - own + 1) // 2
    mask = F.pad(mask, (left, right, left, right), value=-1000)
    return F.unfold(mask[None, None], reach, stride=own)[0].T


@pytest.mark.parametrize('rows,columns', [(6, 2), (0, 2), (6, 0), (0, 0), (3, 5)])
@pytest.mark.parametrize('own,reach', [(7, 14), (7, 21), (3, 27)])
def test_mask_of_the_release(rows, columns, own, reach):
    grid = (2, 3)
    size = (grid[0] * own, grid[1] * own) if own == 3 else (14 - rows, 21 - columns)
    mask = ops.neighbourhood_mask(
        size, grid, (ops.neighbourhood_span(own, reach),) * 2, (rows, columns), torch.device('cpu')
    )
    logits = torch.randn(6, reach**2)
    expected = (logits.double() + released(grid, rows, columns, own, reach)).softmax(-1)
    if mask is None:
        got = logits.double().softmax(-1)
    else:
        got = logits.double().masked_fill(~mask[:, 0, 0], float('-inf')).softmax(-1)
    torch.testing.assert_close(got, expected)


def test_nothing_masked_is_no_mask():
    cpu = torch.device('cpu')
    small, large = ((ops.neighbourhood_span(*pair),) * 2 for pair in ((3, 3), (7, 14)))
    assert ops.neighbourhood_mask((6, 9), (2, 3), small, None, cpu) is None
    assert ops.neighbourhood_mask((14, 14), (2, 2), large, (0, 0), cpu) is None
    with torch.inference_mode():
        ops.neighbourhood_mask.cache_clear()
        mask = ops.neighbourhood_mask((5, 5), (1, 1), large, None, cpu)
    assert not mask.is_inference()  # or training could not use it


@pytest.mark.parametrize('window,side', [(7, 3), (12, 3), (7, 1), (7, 7), (8, 5)])
@pytest.mark.parametrize('size', [(14, 24), (15, 3)])
def test_pooling(window, side, size):
    x = torch.randn(2, *size, 4) - 2  # so that padding zeros are often the maximum
    got = ops.pool_windows(x, window, side)
    padded = F.pad(x, (0, 0, 0, -size[1] % window, 0, -size[0] % window))
    assert got.shape == (2, padded.shape[1] // window * side, padded.shape[2] // window * side, 4)
    for i in range(0, padded.shape[1], window):
        for j in range(0, padded.shape[2], window):
            cut = padded[:, i : i + window, j : j + window].permute(0, 3, 1, 2)
            expected = F.adaptive_max_pool2d(cut, side).permute(0, 2, 3, 1)
            r, c = i // window * side, j // window * side
            assert torch.equal(got[:, r : r + side, c : c + side], expected)


def test_inner_neighbourhoods():
    assert ops.inner_starts(14, 2, 7, 10) == (0, 4)  # the published stride of 4
    assert ops.inner_starts(28, 4, 7, 10) == (0, 6, 13, 18)  # centred: one before, two after
    for length in range(1, 60):
        count = -(-length // 7)
        starts = ops.inner_starts(length, count, 7, 10)
        for i, start in enumerate(starts):
            own = range(7 * i, min(7 * i + 7, length))
            covered = range(start, min(start + 10, length))
            assert set(own) <= set(covered) and len(covered) == min(10, length)
    kv = torch.arange(2 * 15 * 6.0).view(2, 15, 6, 1)
    cut = ops.cut_inner_neighbourhoods(kv, (3, 1), 7, 10)
    assert cut.shape == (6, 60, 1)
    for window, start in enumerate((0, 5, 5)):
        assert torch.equal(cut[3 + window, :, 0], kv[1, start : start + 10].flatten())


def test_weights_come_to_their_places():
    weights = torch.rand(2 * 2 * 2, 4, 9)  # grid 2 x 2, 2 x 2 queries a window, reach 3
    out = ops.spread_weights(weights, (2, 2), (4, 3), 2, ([-1, 1], [-1, 1]), (3, 3), (4, 4))
    assert out.shape == (2, 4, 3, 4, 4)
    first = weights[0, 0].view(3, 3)
    assert torch.equal(out[0, 0, 0, :2, :2], first[1:, 1:]) and out[0, 0, 0, 2:].sum() == 0
    last = weights[7, 2].view(3, 3)  # image 1, window (1, 1), query (1, 0): map (3, 2)
    assert torch.equal(out[1, 3, 2, 1:4, 1:4], last)
