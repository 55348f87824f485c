"""An image in a batch with larger ones is treated as it is alone."""

import pytest
import torch
from golden import relative_error
from mmengine.registry import MODELS
from torch.utils.checkpoint import checkpoint

from dynsp_mm import families
from dynsp_mm.recording import record_decisions
from dynsp_mm.training.losses import keep_ratio_loss

SPARSE = [
    pytest.param(dict(sample, type=card.cls), id=f'{card.name}-{i}')
    for card in families.all_families()
    for i, sample in enumerate(card.samples)
    if card.spatial and sample.get('keep_ratios')
]
SIZE, PADDED = (64, 96), (128, 160)
IMAGE = torch.randn(1, 3, *SIZE)


def build(config, **arguments):
    torch.manual_seed(0)
    if 'Swin' in config['type']:  # else shift and embedding depend on the size of the batch
        arguments.update(pad_small_map=True, use_abs_pos_embed=False)
    model = MODELS.build({**config, **arguments})
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def batch():
    images = torch.zeros(3, 3, *PADDED)
    images[0, :, : SIZE[0], : SIZE[1]] = IMAGE
    images[1] = torch.randn(3, *PADDED)
    images[2, :, :40, :] = torch.randn(3, 40, PADDED[1])
    return images


def of_first_image(maps, alone):
    return [
        x[:1] if x.dim() == 2 else x[:1, :, : y.shape[2], : y.shape[3]] for x, y in zip(maps, alone)
    ]


@pytest.mark.parametrize('prepared', [False, True], ids=['modules', 'prepared'])
@pytest.mark.parametrize('selection', ['topk', 'threshold'])
@pytest.mark.parametrize('config', SPARSE)
def test_as_alone(config, selection, prepared):
    model = build(config, selection=dict(type=selection))
    if prepared:
        model.prepare_for_inference('eager')
    with torch.no_grad(), record_decisions(model) as log:
        alone = model(IMAGE)
        together = model(batch())
    for x, y in zip(of_first_image(together, alone), alone):
        if x.dim() == 4:  # means of whole maps hold padding
            assert relative_error(x, y) < 1e-5
    half = len(log) // 2
    for (_, one), (_, all_) in zip(log[:half], log[half:]):
        rows, cols = one.hw
        keep = all_.keep
        assert torch.equal(keep[0, :rows, :cols], one.keep[0])
        assert not keep[0, rows:].any() and not keep[0, :, cols:].any()
        torch.testing.assert_close(all_.keep_ratio[0], one.keep_ratio[0])


def test_published_counting():
    """With count_padding the whole map has the budget, and dense networks are not concerned."""
    config = dict(families.get('dynamic_swin').samples[0], type='DynamicSwin')
    model = build(config, selection=dict(type='topk', count_padding=True))
    with torch.no_grad(), record_decisions(model) as log:
        model(batch())
    for _, decision in log:
        assert decision.content is None
        positions = decision.hw[0] * decision.hw[1]
        assert decision.keep.flatten(1).sum(1).tolist() == [int(positions * decision.target)] * 3
    dense = build(config, keep_ratios=None)
    assert dense._look_at(batch()).contents is None


@pytest.mark.parametrize('mixing', ['merged', 'two_stream'])
@pytest.mark.parametrize('config', SPARSE)
def test_training_budget_is_of_the_content(config, mixing):
    model = build(config).train()
    if model.plan.gates[0].unit.two_stream:
        model.mixing = mixing
    elif mixing == 'two_stream':
        model.mixing = 'merged'
    with record_decisions(model) as log:
        outs = model(batch())
    decisions = log.decisions
    for decision in decisions:
        mask, content = decision.mask.squeeze(-1), decision.content
        assert not mask[~content.mask].any()
        shares = mask.sum(1) / torch.tensor(content.counts)
        torch.testing.assert_close(decision.keep_ratio, shares)
    loss = keep_ratio_loss(
        [decision.mask for decision in decisions],
        [decision.target for decision in decisions],
        [decision.content for decision in decisions],
    )
    expected = torch.stack([(d.keep_ratio - d.target).square().mean() for d in decisions]).mean()
    torch.testing.assert_close(loss, expected)
    (loss + sum(out.square().mean() for out in outs)).backward()
    for parameter in model.token_predictors.parameters():
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize('config', SPARSE)
def test_outputs_are_zero_where_padding_is(config):
    """And the same prepared, also where the sides of the batch are no multiples of 32."""
    model = build(config)
    images = torch.zeros(2, 3, 95, 161)
    images[0, :, :64, :96] = torch.randn(3, 64, 96)
    images[1] = torch.randn(3, 95, 161)
    with torch.no_grad():
        alone, maps = model(images[:1, :, :64, :96]), model(images)
        prepared = model.prepare_for_inference('eager')(images)
    for one, both, fast in zip(alone, maps, prepared):
        rows, cols = one.shape[2:]
        assert relative_error(both[:1, :, :rows, :cols], one) < 1e-5
        assert not both[0, :, rows:].any() and not both[0, :, :, cols:].any()
        assert relative_error(fast, both) < 1e-5


def test_pooled_maps_are_means_of_the_content():
    config = dict(families.get('dynamic_convnext').samples[0], type='DynamicConvNeXt')
    model = build(config, gap_before_final_norm=True)
    with torch.no_grad():
        images = batch()
        alone, together = model(IMAGE), model(images)
        prepared = model.prepare_for_inference('eager')(images)
    for one, all_, fast in zip(alone, together, prepared):
        assert relative_error(all_[:1], one) < 1e-5 and relative_error(fast, all_) < 1e-5


def test_reentrant_checkpoints_decide_alike_in_both_runs():
    """The first has no gradients; its images have."""
    config = dict(families.get('dynamic_swin').samples[0], type='DynamicSwin')
    model, image = build(config).train(), batch().requires_grad_()
    losses = []
    for wrapped in (False, True):
        torch.manual_seed(1)
        outs = checkpoint(model, image, use_reentrant=True) if wrapped else model(image)
        loss = sum(out.square().mean() for out in outs)
        model.zero_grad()
        loss.backward()
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        losses.append((loss.item(), torch.cat(grads)))
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)
    torch.testing.assert_close(losses[0][1], losses[1][1])
