"""Parity with the published programs, on tensors that they produced."""

import pytest
import torch
import torch.nn.functional as F
from golden import Classifier, load, relative_error

from dynsp_mm import record_decisions
from dynsp_mm.checkpoints import convert_state_dict
from dynsp_mm.training import keep_ratio_loss

TOLERANCE = 1e-5
EVAL = [
    'dynamic_swin_eval',
    'dynamic_swin_eval_batch3',
    'dynamic_convnext_eval',
    'dynamic_convnext_eval_rect',
]
TRAIN = [
    ('dynamic_swin_train', 'dynamic_swin_eval_batch3'),
    ('dynamic_convnext_train', 'dynamic_convnext_eval'),
]


def stage_outputs(backbone, image):
    """Maps of the four stages before norm and downsampling."""
    maps, handles = [], []

    def keep(module, args, output):
        maps.append(getattr(output, 'tokens', output))

    if hasattr(backbone, 'patch_embed'):
        handles = [stage.register_forward_hook(keep) for stage in backbone.stages]
    else:  # the input of the next stage's downsampling, and the last block
        handles = [
            layer.register_forward_pre_hook(lambda m, a: maps.append(a[0]))
            for layer in backbone.downsample_layers[1:]
        ]
        handles.append(backbone.stages[-1][-1].register_forward_hook(keep))
    backbone(image)
    for handle in handles:
        handle.remove()
    return maps


@pytest.mark.parametrize('name', EVAL)
def test_inference_equals_release(name):
    golden = load(name)
    model = Classifier(golden).eval()
    with torch.no_grad(), record_decisions(model) as log:
        logits = model(golden['input'])
    assert relative_error(logits, golden['logits']) < TOLERANCE

    assert len(log) == len(golden['slow_indices'])
    for decision, slow, fast in zip(log.decisions, golden['slow_indices'], golden['fast_indices']):
        keep = decision.keep.flatten(1)
        assert torch.equal(keep, torch.zeros_like(keep).scatter_(1, slow, True))
        assert torch.equal(~keep, torch.zeros_like(keep).scatter_(1, fast, True))

    with torch.no_grad():
        outputs = stage_outputs(model.backbone, golden['input'])
    assert len(outputs) == 4
    for ours, theirs in zip(outputs, golden['stage_outputs']):
        if theirs.dim() == 4 and ours.dim() == 3:
            theirs = theirs.flatten(2).transpose(1, 2)
        assert relative_error(ours, theirs) < TOLERANCE


@pytest.mark.parametrize('name,weights', TRAIN)
def test_training_equals_release(name, weights, deterministic_gumbel):
    golden, source = load(name), load(weights)
    model = Classifier(source).train()
    with record_decisions(model) as log:
        features = model.features(source['input'])
        if model.swin:
            logits = model.head.fc(features.mean((2, 3)))
    if not model.swin:
        # The release normalises the map for distillation and the pooled vector for the logits.
        logits = model(source['input'])
    assert relative_error(logits, golden['logits']) < TOLERANCE
    featmap = golden['featmap']
    if featmap.dim() == 3:
        featmap = featmap.unflatten(1, features.shape[2:])
    assert relative_error(features.permute(0, 2, 3, 1), featmap) < TOLERANCE

    masks = [decision.mask for decision in log.decisions]
    for mask, theirs in zip(masks, golden['decisions']):
        assert torch.equal(mask.detach().round().flatten(), theirs.round().flatten())

    teacher = golden['teacher_featmap']
    ours = features.permute(0, 2, 3, 1).reshape(teacher.shape)
    loss = (
        F.cross_entropy(logits, golden['labels'])
        + 10 * keep_ratio_loss(masks, [d.target for d in log.decisions])
        + 0.5
        * F.kl_div(
            logits.log_softmax(-1),
            golden['teacher_logits'].log_softmax(-1),
            log_target=True,
            reduction='batchmean',
        )
        + 0.5 * F.mse_loss(ours, teacher)
    )
    assert abs(loss.item() / golden['loss'].item() - 1) < TOLERANCE

    loss.backward()
    renamed = dict(convert_state_dict(source['state_dict']).mapped)
    norms = {renamed[k]: float(v) for k, v in golden['grad_norms'].items() if k in renamed}
    assert len(norms) == len(list(model.parameters()))
    largest = max(norms.values())
    for key, parameter in model.named_parameters():
        ours = 0.0 if parameter.grad is None else float(parameter.grad.norm())
        assert abs(ours - norms[key]) < TOLERANCE * largest, key
        # Per tensor too: a factor in one small gradient must not hide behind the largest.
        assert abs(ours - norms[key]) < 1e-4 * max(norms[key], 1e-4 * largest), key
