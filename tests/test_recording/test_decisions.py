import torch

from dynsp_mm import DynamicConvNeXt, DynamicSwin, record_decisions

ARGS = dict(
    arch=dict(embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4)),
    keep_ratios=(0.7, 0.5, 0.3),
)


def test_names_order_and_end():
    model = torch.nn.ModuleDict(dict(backbone=DynamicSwin(**ARGS))).eval()
    with record_decisions(model) as log:
        model.backbone(torch.randn(2, 3, 64, 64))
        model.backbone(torch.randn(1, 3, 96, 64))
    model.backbone(torch.randn(1, 3, 64, 64))  # no longer recorded
    names = [f'backbone.token_predictors.{k}' for k in range(3)]
    assert [record.predictor for record in log] == names * 2
    assert list(log.by_predictor()) == names
    assert [d.scores.shape[0] for d in log.by_predictor()[names[0]]] == [2, 1]
    assert [d.target for d in log.decisions[:3]] == [0.7, 0.5, 0.3]
    assert not any(m._forward_hooks for m in model.modules())


def test_hooks_are_removed_after_an_error():
    model = DynamicSwin(**ARGS)
    try:
        with record_decisions(model):
            raise KeyError
    except KeyError:
        pass
    assert not any(m._forward_hooks for m in model.modules())


def test_a_dense_model_gives_an_empty_log():
    model = DynamicConvNeXt('atto')
    with record_decisions(model) as log:
        model(torch.randn(1, 3, 32, 32))
    assert log == []
