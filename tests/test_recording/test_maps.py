import pytest
import torch
from library_models import CONVNEXT, built, classifier
from mmengine.registry import MODELS
from toys import SWIN

from dynsp_mm.recording import OutputRecorder, record_maps


def test_averaged_maps_are_whole_and_normalised_at_each_position():
    model, _ = built(classifier(CONVNEXT))
    images = torch.randn(2, 3, 64, 96)
    with OutputRecorder(model.eval(), 'backbone', False) as recorder:
        averaged = model.backbone(images)[-1]
    model.backbone.gap_before_final_norm = False
    assert averaged.shape == (2, 128)
    torch.testing.assert_close(recorder.calls[0].maps[0], model.backbone(images)[-1])


def test_averaged_maps_of_each_call():
    model, _ = built(classifier(CONVNEXT))
    with OutputRecorder(model.eval(), 'backbone', False) as recorder:
        for size in (64, 96):
            model.backbone(torch.randn(1, 3, size, size))
    assert [[tuple(m.shape[2:]) for m in call.maps] for call in recorder.calls] == [
        [(2, 2)],
        [(3, 3)],
    ]


def test_inputs_and_maps_of_each_call():
    model = MODELS.build(dict(SWIN, out_indices=(1, 3))).eval()
    images = [torch.randn(2, 3, 64, 64), torch.randn(1, 3, 96, 64)]
    with record_maps(model) as calls:
        outputs = [model(image) for image in images]
    model(images[0])  # no longer recorded
    assert len(calls) == 2
    for call, image, output in zip(calls, images, outputs):
        assert call.image is image
        assert all(ours is theirs for ours, theirs in zip(call.maps, output))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_forward_that_fails_leaves_no_map_in_the_next():
    backbone = MODELS.build(dict(CONVNEXT, out_indices=(2, 3))).eval()
    image = torch.randn(1, 3, 64, 64)
    handle = None

    def fail(module, args):
        handle.remove()
        raise RuntimeError('stumbled')

    with record_maps(backbone) as calls:
        handle = backbone.norm3.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match='stumbled'):
            backbone(image)
        averaged = backbone(image + 1)
    assert [tuple(m.shape) for m in averaged] == [(1, 64), (1, 128)]
    backbone.gap_before_final_norm = False
    (call,) = calls
    for ours, theirs in zip(call.maps, backbone(image + 1)):
        torch.testing.assert_close(ours, theirs)
