import torch
from library_models import built, classifier, detector, segmentor
from torch import nn

from dynsp_mm.recording import OutputRecorder, logit_layer


def test_logit_layers():
    assert logit_layer(built(detector())[0]) is None
    model, _ = built(segmentor())
    assert logit_layer(model) is model.decode_head.conv_seg
    model.decode_head = nn.ModuleList([nn.Linear(1, 1), model.decode_head])  # a cascade's
    assert logit_layer(model) is model.decode_head[-1].conv_seg
    model, _ = built(classifier())
    assert logit_layer(model) is model.head


def test_outputs_are_taken_once_and_opening_again_forgets():
    model, _ = built(classifier())
    image = torch.randn(1, 3, 64, 64)
    recorder = OutputRecorder(model.eval(), 'backbone', True)
    with recorder:
        model.backbone(image)
        expected = model(image)
    assert len(recorder.calls) == 2 and recorder.logits is expected
    with recorder:
        assert recorder.calls == [] and recorder.logits is None
        again = model(image)
    calls, logits = recorder.take()
    assert [call.image for call in calls] == [image] and logits is again
    assert recorder.calls == [] and recorder.logits is None
    assert not any(module._forward_hooks for module in model.modules())
