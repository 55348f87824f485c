import pytest
import torch

from dynsp_mm import TokenPredictor
from dynsp_mm.ops import Selection


def test_starts_by_keeping():
    predictor = TokenPredictor(32, 1e-5)
    probability = predictor.log_probs(torch.randn(2, 500, 32)).exp()[..., 0]
    assert probability.min() > 0.9
    mask = predictor.train()(torch.randn(2, 500, 32), (20, 25), 0.5, Selection()).mask
    assert mask.mean() > 0.9
    keep = predictor.eval()(torch.randn(2, 500, 32), (20, 25), 0.5, Selection('threshold')).keep
    assert keep.all()


def test_global_half_is_the_mean_over_the_image():
    predictor = TokenPredictor(16, 1e-6).eval()
    for layer in (predictor.proj, *predictor.head[::2]):
        torch.nn.init.normal_(layer.weight, std=0.3)
    tokens = torch.randn(2, 12, 16)
    scores = predictor.log_probs(tokens)
    order = torch.randperm(12)
    torch.testing.assert_close(predictor.log_probs(tokens[:, order]), scores[:, order])
    # One position sees the others through the mean, and other images not at all.
    moved = tokens.clone()
    moved[0, 3] += torch.randn(16)
    changed = (predictor.log_probs(moved) != scores).any(-1)
    assert changed[0].all() and not changed[1].any()


def test_decision_of_training_and_inference():
    predictor = TokenPredictor(16, 1e-6)
    tokens = torch.randn(3, 12, 16, requires_grad=True)
    decision = predictor.eval()(tokens, (3, 4), 0.5, Selection())
    assert decision.mask is None and decision.keep.shape == (3, 3, 4)
    assert decision.keep_ratio.tolist() == [0.5] * 3
    assert sorted(decision.slow.tolist() + decision.fast.tolist()) == list(range(36))
    decision = predictor.train()(tokens, (3, 4), 0.5, Selection())
    assert decision.slow is None and decision.mask.shape == (3, 12, 1)
    assert torch.equal(decision.keep.flatten(1), decision.mask.squeeze(-1) > 0.5)
    assert repr(decision).startswith('Decision(training, hw=(3, 4), target=0.5, keep_ratio=(')
    decision.mask.sum().backward()
    assert tokens.grad.abs().sum() > 0


def test_channels_must_split_in_four():
    with pytest.raises(ValueError, match='embed_dims=18'):
        TokenPredictor(18, 1e-5)
