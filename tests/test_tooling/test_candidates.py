"""The names of a benchmark's command line, and that what they name can be compared."""

import pytest
import torch
from mmengine.registry import MODELS
from toys import SWIN

from dynsp_mm.errors import UserError
from dynsp_mm.prepared import Preparable
from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling.candidates import (
    Candidate,
    build_alike,
    find_candidates,
    load_fitting,
    make_ready,
    read_weights,
)
from dynsp_mm.tooling.swap_check import max_error

SIZE = (64, 64)
CONFIG = """
default_scope = {scope!r}
model = dict(type='ImageClassifier', backbone={backbone},
             neck=dict(type='GlobalAveragePooling'),
             head=dict(type='LinearClsHead', num_classes=3, in_channels=128))
data_preprocessor = dict(mean=[0, 0, 0], std=[255, 255, 255], num_classes=3)
"""
DENSE = dict(SWIN, type='SwinTransformer', pad_small_map=True)
del DENSE['keep_ratios']


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, backbone, scope='mmpretrain'):
        (tmp_path / name).write_text(CONFIG.format(scope=scope, backbone=backbone))
        return name

    return write


def test_changes(write):
    name = write('a@b.py', DENSE)
    backbone = Candidate(
        f'{name}@sparse=0.9,0.6,0.5@window_size=4@model.head.num_classes=7'
    ).cfg.model
    assert backbone.head.num_classes == 7
    backbone = backbone.backbone
    assert (backbone.type, backbone.window_size) == ('DynamicSwin', 4)
    assert backbone.keep_ratios == (0.9, 0.6, 0.5)
    assert Candidate(f'{name}@dense').build('backbone', SIZE).backbone.keep_ratios is None
    assert Candidate(name).cfg.model.backbone.type == 'SwinTransformer'


def test_named_backbones():
    candidate = Candidate('dynamic_convnext_atto@keep_ratios=0.9,0.6,0.5@drop_path_rate=0.1')
    model = candidate.build('backbone', SIZE)
    assert model.backbone.keep_ratios == (0.9, 0.6, 0.5)
    assert candidate.cfg.model.backbone.drop_path_rate == 0.1
    assert Candidate('dynamic_convnext_atto@sparse=0.7').build(
        'backbone', SIZE
    ).backbone.keep_ratios == (0.7, 0.5, 0.3)
    assert (
        Candidate('dynamic_convnext_atto@dense').build('backbone', SIZE).backbone.keep_ratios
        is None
    )


def test_order_and_labels():
    names = ['dynamic_convnext_atto', 'dynamic_swin_t', 'dynamic_convnext_atto']
    labels = [candidate.label for candidate in find_candidates(names, True, ['0.7', '0.6'])]
    forms = ['', '@dense', '@sparse=0.7', '@sparse=0.6']
    assert labels == [names[0] + form for form in forms] + [names[1] + form for form in forms] + [
        names[0] + form + ' (2)' for form in forms
    ]
    assert [candidate.label for candidate in find_candidates(names[:2])] == names[:2]


def test_the_same_weights_and_images_compute_the_same(write):
    """The library's dense network, and ours with every position kept."""
    name = write('net.py', DENSE)
    for part in ('backbone', 'model'):
        outputs, shared = [], {}
        for candidate in find_candidates([name], True, ['0.7']):
            model = candidate.build(part, SIZE).eval()
            # Weights that a candidate has not by its own start.
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.02 * (1 + len(outputs)) * torch.rand_like(parameter)
            load_fitting(model, shared)
            shared = shared or model.state_dict()
            batch = candidate.batch(model, 3, SIZE, False)
            assert batch['inputs'].shape == (3, 3, *SIZE)
            with torch.no_grad():
                outputs.append(model(batch['inputs'], mode='tensor')[0])
        assert max_error(outputs[1:2], outputs[:1]) < 1e-5
        assert max_error(outputs[2:], outputs[:1]) > 1e-3


def forms(model):
    return [m._form is not None for m in model.modules() if isinstance(m, Preparable)]


def test_made_ready_for_inference(write):
    """Own backbones are prepared and cast, others cast unless autocast is wanted."""
    (plain,) = find_candidates([write('net.py', DENSE)])
    (sparse,) = find_candidates([write('net.py', DENSE)], ratios=['0.7'])[1:]
    bf16, cpu = torch.bfloat16, torch.device('cpu')

    def ready(candidate, part, dtype, autocast, backend):
        ((model, batch),) = build_alike([candidate], part, 1, SIZE, cpu)
        used = make_ready(model, batch, part, dtype, autocast, backend)
        return used, next(model.backbone.parameters()).dtype, batch['inputs'].dtype, forms(model)

    used, weights, images, parts = ready(sparse, 'backbone', bf16, True, 'eager')
    assert (used, weights, images) == ('eager', bf16, bf16) and all(parts)
    used, weights, images, parts = ready(sparse, 'backbone', bf16, False, None)
    assert (used, weights, images) == (None, bf16, bf16) and not any(parts)
    used, weights, images, parts = ready(sparse, 'backbone', bf16, True, None)
    assert (used, weights, images) == (None, torch.float32, torch.float32)
    used, weights, images, parts = ready(sparse, 'model', bf16, True, 'auto')
    assert used is None and weights == images == torch.float32 and not any(parts)
    used, weights, images, parts = ready(sparse, 'model', torch.float32, False, 'auto')
    assert used in ('onednn', 'eager') and all(parts)
    assert ready(plain, 'backbone', bf16, True, 'auto')[:3] == (None, torch.float32, torch.float32)
    assert ready(plain, 'backbone', bf16, False, 'auto')[:3] == (None, bf16, bf16)
    with pytest.raises(ValueError, match="backend='triton'"):
        ready(sparse, 'backbone', bf16, True, 'triton')
    with pytest.raises(ValueError, match="backend='eager': whole models run in reduced precision"):
        ready(sparse, 'model', bf16, True, 'eager')


def test_candidates_are_built_alike(write):
    """Weights of a checkpoint, else of the first; images for all."""
    cpu = torch.device('cpu')
    candidates = find_candidates([write('net.py', DENSE)], ratios=['0.7'])
    (first, images), (second, same) = build_alike(candidates, 'backbone', 2, SIZE, cpu)
    assert images['inputs'].shape == (2, 3, *SIZE)
    assert torch.equal(images['inputs'], same['inputs'])
    weights = dict(first.named_parameters())
    assert len(dict(second.named_parameters())) > len(weights)
    for name, value in weights.items():
        assert torch.equal(value, second.get_parameter(name)), name
    threes = {name: torch.full_like(value, 3) for name, value in weights.items()}
    for model, _ in build_alike(candidates, 'model', 1, SIZE, cpu, True, weights=threes):
        assert all((model.get_parameter(name) == 3).all() for name in threes)
    with pytest.raises(cli.UserError, match='--checkpoint: none of its tensors fits net.py$'):
        next(build_alike(candidates, 'backbone', 1, SIZE, cpu, weights=dict(no=torch.zeros(1))))


@pytest.mark.parametrize('label', ['dynamic_convnext_atto@sparse=0.7', 'net.py@sparse=0.7'])
def test_a_config_builds_what_the_candidate_is(write, label):
    write('net.py', DENSE)
    candidate = Candidate(label)
    expected = candidate.build('backbone', SIZE).backbone
    built = MODELS.build(candidate.model_cfg.model).backbone
    assert type(built) is type(expected) and built.keep_ratios == expected.keep_ratios
    assert built.out_indices == expected.out_indices
    assert {name: value.shape for name, value in built.state_dict().items()} == {
        name: value.shape for name, value in expected.state_dict().items()
    }


def test_a_batch_suits_training(write):
    candidate = Candidate(
        write('net.py', dict(SWIN, init_cfg=dict(type='Pretrained', checkpoint='never_read.pth')))
    )
    assert candidate.build('backbone', SIZE).backbone.keep_ratios == (0.7, 0.5, 0.3)
    model = candidate.build('model', SIZE)
    batch = candidate.batch(model, 5, SIZE, True)  # more images than classes
    assert len(batch['data_samples']) == 5
    assert model(**batch, mode='loss')['loss'].isfinite()
    channels = Candidate('dynamic_convnext_atto@in_channels=4')
    assert channels.batch(channels.build('backbone', SIZE), 2, SIZE, False)['inputs'].shape == (
        2,
        4,
        *SIZE,
    )


def test_weights_of_a_checkpoint(tmp_path):
    candidate = Candidate('dynamic_convnext_atto')
    model = candidate.build('backbone', SIZE)
    path = str(tmp_path / 'weights.pth')
    for weights in (model.state_dict(), model.backbone.state_dict()):
        torch.save(dict(state_dict=weights), path)
        assert read_weights(path).keys() == model.state_dict().keys()
    weights = {name: torch.full_like(value, 3) for name, value in model.state_dict().items()}
    first = next(iter(weights))
    weights[first] = torch.zeros(1, 1)  # of another size
    assert load_fitting(model, {**weights, 'head.bias': torch.zeros(2)}) == len(weights) - 1
    assert not (model.state_dict()[first] == 3).any()
    assert all((value == 3).all() for name, value in model.state_dict().items() if name != first)


@pytest.mark.parametrize(
    'label,text',
    [
        (
            'dynamic_swim_t',
            'dynamic_swim_t: neither a config file, nor a config of a library such as',
        ),
        ('dynamic_swin_t@sparse=x', "dynamic_swin_t@sparse=x: 'x': must be a number"),
        ('dynamic_swin_t@sparse=', "dynamic_swin_t@sparse=: '': must be a number"),
        ('dynamic_swin_t@model.neck.a=1', 'a backbone without config has nothing else'),
        ('net.py@sparse=2', '--sparse 2: keep_ratios=2.0: one number r stands for'),
        ('empty.py', 'empty.py: model must be set'),
        ('whole.py', 'whole.py: has no model.backbone'),
    ],
)
def test_what_cannot_be_named(write, tmp_path, label, text):
    write('net.py', DENSE)
    (tmp_path / 'empty.py').write_text("default_scope = 'mmpretrain'")
    (tmp_path / 'whole.py').write_text("default_scope = 'mmpretrain'\nmodel = dict(type='A')")
    with pytest.raises(cli.UserError) as caught:
        Candidate(label)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    'label,part,text',
    [
        ('dynamic_swin_q', 'backbone', 'the sizes of dynamic_swin are tiny'),
        ('net.py@keep_ratios=0.7', 'backbone', "unexpected keyword argument 'keep_ratios'"),
        ('net.py@type=NoSuchNet', 'backbone', 'NoSuchNet is not in the'),
        ('net.py@model.type=NoSuchModel', 'model', 'NoSuchModel is not in the'),
    ],
)
def test_what_cannot_be_built(write, label, part, text):
    write('net.py', DENSE)
    with pytest.raises(cli.UserError, match=f'^{label}: the {part} cannot be built: .*{text}'):
        Candidate(label).build(part, SIZE)


def test_models_of_videos(write, monkeypatch):
    candidate = Candidate(write('net.py', SWIN))
    model = candidate.build('model', SIZE)
    monkeypatch.setattr(
        type(model.data_preprocessor),
        'forward',
        lambda self, batch, training: dict(inputs=dict(img=batch['inputs'])),
    )
    with pytest.raises(cli.UserError, match='net.py: --part model measures models of single'):
        candidate.batch(model, 1, SIZE, False)


def test_ratios_are_said_once():
    with pytest.raises(UserError, match='^dynamic_swin_t@sparse=0.7@keep_ratios=0.5: two ratios'):
        Candidate('dynamic_swin_t@sparse=0.7@keep_ratios=0.5')
    assert Candidate('dynamic_swin_t@keep_ratios=0.5@dense').backbone.keep_ratios == 1.0
