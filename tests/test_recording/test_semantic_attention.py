import pytest
import torch
from mmengine.registry import MODELS
from toys import SWIN

from dynsp_mm import STViTSwin, record_semantic_attention

STVIT = dict(embed_dims=16, depths=(1, 1, 12, 1), num_heads=(1, 1, 2, 4))


@pytest.mark.parametrize('form', ['dense_prediction', 'classification'])
def test_semantic_attention(form):
    model = torch.nn.ModuleDict(dict(backbone=STViTSwin(**STVIT, form=form))).eval()
    image = torch.randn(2, 3, 240, 200)  # map 15 x 13: padding in both directions
    with torch.no_grad(), record_semantic_attention(model) as log:
        recorded = model.backbone(image)
        assert torch.equal(model.backbone(image)[0], recorded[0])  # looking changes nothing
    assert not any(m._forward_hooks for m in model.modules())
    assert len(log) == 12 and [a.block for a in log[:6]] == [a.block for a in log[6:]]
    blocks = [f'backbone.stages.2.blocks.{j}' for j in (1, 2, 5, 7, 8, 11)]
    assert [a.block for a in log[:6]] == blocks
    assert [a.role for a in log[:6]] == ['generate', 'refine', 'recover'] * 2
    for attention in log[:6]:
        assert attention.weights.shape == (2, 9, 6, 15, 13)
        assert (attention.weights >= 0).all() and not attention.weights.requires_grad
        if attention.role == 'recover':  # every position recovers from the tokens, wholly
            torch.testing.assert_close(attention.received, torch.ones(2, 15, 13))
        else:
            total = attention.weights.sum((3, 4))
            if form == 'dense_prediction':  # padding is masked, so all goes to positions
                torch.testing.assert_close(total, torch.ones(2, 9, 6))
            assert (total <= 1 + 1e-5).all() and (total > 0.3).all()
        assert attention.regions.shape == (2, 15, 13)
    if form == 'dense_prediction':
        # A token of the first window sees 14 x 14 positions around it: 3 before, 4 after.
        seen = log[0].weights[0, 0, 0] > 0
        assert seen[:11, :11].all() and not seen[11:].any() and not seen[:, 11:].any()


def test_a_model_without_semantic_tokens_gives_an_empty_log():
    model = MODELS.build(SWIN).eval()
    with record_semantic_attention(model) as log:
        model(torch.randn(1, 3, 64, 64))
    assert log == []
