import pytest
import torch

from dynsp_mm.errors import UserError
from dynsp_mm.ops import Content, Selection, gumbel_keep_mask, keep_map, split_positions

TOPK = Selection()


@pytest.mark.parametrize('batch', [1, 2, 3])
@pytest.mark.parametrize(
    'count,ratio,kept',
    [(196, 0.7, 137), (196, 0.5, 98), (196, 0.3, 58), (4, 0.2, 0), (5, 1.0, 5), (1, 0.5, 0)],
)
def test_topk_keeps_the_highest_scores(batch, count, ratio, kept):
    scores = torch.randn(batch, count)
    keep = keep_map(scores, ratio, TOPK)
    assert keep.sum(1).tolist() == [kept] * batch
    for s, k in zip(scores, keep):
        if 0 < kept < count:
            assert s[k].min() >= s[~k].max()


def test_topk_follows_a_permutation():
    scores = torch.randn(2, 50)
    order = torch.randperm(50)
    assert torch.equal(keep_map(scores, 0.4, TOPK)[:, order], keep_map(scores[:, order], 0.4, TOPK))


def test_images_do_not_influence_each_other():
    scores = torch.randn(3, 40)
    together = keep_map(scores, 0.3, TOPK)
    for i in range(3):
        assert torch.equal(together[i : i + 1], keep_map(scores[i : i + 1], 0.3, TOPK))


def test_ties_and_nan_keep_the_budget():
    assert keep_map(torch.zeros(2, 10), 0.5, TOPK).sum(1).tolist() == [5, 5]
    assert keep_map(torch.full((2, 10), float('nan')), 0.5, TOPK).sum(1).tolist() == [5, 5]


@pytest.mark.parametrize('batch,count,ratio', [(1, 1, 1.0), (3, 50, 0.5), (2, 7, 0.1), (2, 9, 1.0)])
def test_topk_is_the_beginning_of_a_stable_sort(batch, count, ratio):
    for _ in range(20):
        scores = torch.randint(5, (batch, count)).float()
        special = torch.rand(batch, count) < 0.2
        values = torch.tensor([float('nan'), float('inf'), -float('inf')])
        scores[special] = values[torch.randint(3, (int(special.sum()),))]
        # To a sort, what is not a number is as large as infinity here: the first comes first.
        order = scores.nan_to_num(nan=float('inf')).argsort(dim=1, descending=True, stable=True)
        expected = torch.zeros(batch, count, dtype=torch.bool)
        expected.scatter_(1, order[:, : int(count * ratio)], True)
        assert torch.equal(keep_map(scores, ratio, Selection()), expected)


def test_threshold_gives_each_image_its_own_budget():
    probability = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.3, 0.4], [0.5, 0.99, 0.7]])
    keep = keep_map(probability.log(), 0.1, Selection('threshold', 0.5))
    assert keep.tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_split_is_a_permutation_with_flat_indices():
    probability = torch.tensor([[0.9, 0.1, 0.2], [0.7, 0.6, 0.8]])
    slow, fast = split_positions(probability.log(), 0.0, Selection('threshold', 0.5))
    assert slow.tolist() == [0, 3, 4, 5] and fast.tolist() == [1, 2]
    slow, fast = split_positions(probability.log(), 0.67, TOPK)
    assert slow.tolist() == [0, 2, 3, 5] and fast.tolist() == [1, 4]


@pytest.mark.parametrize('selection', [TOPK, Selection('random'), Selection('threshold', 0.5)])
@pytest.mark.parametrize('ratio', [0.0, 0.37, 1.0])
def test_split_is_that_of_the_keep_map(selection, ratio):
    scores = torch.randn(3, 50).sigmoid().log()
    scores[0, :7] = scores[0, 7]  # ties
    keep = keep_map(scores, ratio, selection)
    slow, fast = split_positions(scores, ratio, selection)
    assert torch.equal(slow, keep.flatten().nonzero().squeeze(1))
    assert torch.equal(fast, (~keep).flatten().nonzero().squeeze(1))


def test_sizes_of_a_fixed_budget_do_not_depend_on_values():
    """So that no device waits for values: meta tensors have none."""
    for selection in (TOPK, Selection('random')):
        slow, fast = split_positions(torch.empty(3, 50, device='meta'), 0.3, selection)
        assert (slow.shape, fast.shape) == ((45,), (105,))


def test_gumbel_mask_is_hard_and_differentiable():
    logits = torch.randn(2, 1000, 2, requires_grad=True)
    mask = gumbel_keep_mask(logits.log_softmax(-1))
    assert mask.shape == (2, 1000, 1)
    assert torch.equal(mask.detach().round(), mask.detach().round().clamp(0, 1))
    assert (mask.detach() - mask.detach().round()).abs().max() < 1e-6
    mask.sum().backward()
    assert logits.grad.abs().max() > 0
    # The sample follows the probabilities.
    sure = torch.tensor([2.0, -2.0]).log_softmax(-1).expand(1, 20000, 2)
    assert abs(gumbel_keep_mask(sure).mean().item() - 0.982) < 0.01


@pytest.mark.parametrize(
    'value',
    [
        'best',
        dict(type='topk', k=3),
        dict(threshold=0.5),
        3,
        dict(type='threshold', threshold=1.0),
        dict(type='threshold', threshold='0.5'),
    ],
)
def test_bad_selection(value):
    with pytest.raises(ValueError, match='selection'):
        Selection.parse(value)


@pytest.mark.parametrize('selection', [TOPK, Selection('random'), Selection('threshold', 0.5)])
def test_budgets_are_shares_of_the_content(selection):
    scores = torch.rand(3, 40).log()
    scores[0, :7] = -torch.inf  # no worse than padding
    scores[1, 35:] = torch.nan
    mask = torch.zeros(3, 40, dtype=torch.bool)
    for row, count in zip(mask, (10, 25, 40)):
        row[:count] = True
    content = Content(((1, 10), (5, 5), (4, 10)), mask)
    keep = keep_map(scores, 0.4, selection, content)
    assert not (keep & ~mask).any()
    if selection.type == 'threshold':
        assert torch.equal(keep, (scores.exp() >= 0.5) & mask)
    else:
        assert keep.sum(1).tolist() == [4, 10, 16]
        if selection.type == 'topk':
            for i, count in enumerate((10, 25, 40)):
                assert torch.equal(
                    keep[i, :count], keep_map(scores[i : i + 1, :count], 0.4, TOPK)[0]
                )
    slow, fast = split_positions(scores, 0.4, selection, content)
    assert torch.equal(slow, keep.flatten().nonzero().squeeze(1))
    assert torch.equal(torch.cat([slow, fast]).sort().values, torch.arange(120))


def test_a_traced_count_follows_the_size():
    traced = torch.jit.trace(
        lambda x: split_positions(x, 0.7, TOPK), torch.rand(1, 100), check_trace=False
    )
    for B, N in ((1, 100), (2, 10), (3, 1), (1, 30)):
        scores = torch.rand(B, N)
        for got, expected in zip(traced(scores), split_positions(scores, 0.7, TOPK)):
            assert torch.equal(got, expected)


def test_count_padding_is_yes_or_no():
    with pytest.raises(UserError, match='count_padding=1'):
        Selection(count_padding=1)
    assert Selection.parse(dict(type='topk', count_padding=True)).count_padding
