"""Teachers: where they come from, and that they are frozen and nowhere else."""

import copy

import pytest
import torch
from library_models import (
    CONVNEXT,
    attached,
    built,
    classifier,
    config,
    dense_checkpoint,
    detector,
    refusal,
    samples,
    segmentor,
)
from torch import nn
from toys import SWIN

from dynsp_mm import SpatialSparsityHook
from dynsp_mm.errors import UserError
from dynsp_mm.recording import record_maps
from dynsp_mm.training import Teacher
from dynsp_mm.training.teacher import without_adapters


# ---------------------------------------------------------------------- from a checkpoint
def test_teacher_is_frozen_and_eval_and_follows(tmp_path):
    model = segmentor(dict(SWIN, drop_path_rate=0.5))
    model['decode_head'].update(norm_cfg=dict(type='BN'), dropout_ratio=0.5)
    dense, checkpoint = dense_checkpoint(tmp_path, model)
    student, hook = attached(model, checkpoint)
    teacher = hook.distillation.teacher
    assert not any(module.training for module in teacher.model.modules())
    assert not any(p.requires_grad for p in teacher.model.parameters())
    before = copy.deepcopy(teacher.model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    total, _ = student.parse_losses(student(images, samples(student), mode='loss'))
    total.backward()
    outputs = teacher(images)
    assert not outputs.maps[0].requires_grad and not outputs.logits.requires_grad
    torch.testing.assert_close(outputs.logits, dense(images))
    after = teacher.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)  # running means, too
    assert all(p.grad is None for p in teacher.model.parameters())
    # Nothing of it is in the student.
    own = {id(module) for module in student.modules()}
    assert not own & {id(module) for module in teacher.model.modules()}
    assert set(student.state_dict()) == set(built(model)[0].state_dict())

    student.to(torch.bfloat16)
    losses = student(images.bfloat16(), samples(student), mode='loss')
    assert next(teacher.model.parameters()).dtype == torch.bfloat16
    assert losses['loss_distill_logits'].dtype == torch.float32


def test_a_teacher_of_its_own_config(tmp_path):
    """Another network whose maps have the same sizes: deeper, and a class of a library."""
    other = detector(
        dict(
            type='SwinTransformer',
            embed_dims=16,
            depths=(2, 2, 2, 2),
            num_heads=(1, 1, 2, 4),
            window_size=7,
        )
    )
    model = detector()
    built(other)
    dense, cfg = built(other)
    path = tmp_path / 'other.pth'
    torch.save(dense.state_dict(), path)
    cfg.dump(tmp_path / 'other.py')
    for given in (str(tmp_path / 'other.py'), cfg.model.to_dict()):
        student, hook = attached(model, dict(checkpoint=str(path), config=given))
        losses = student(torch.randn(1, 3, 64, 64), samples(student, 1), mode='loss')
        assert 'loss_distill_map_3' in losses
        assert len(hook.distillation.teacher.model.stages[0].blocks) == 2


@pytest.mark.parametrize(
    'backbone',
    [
        dict(
            type='mmpretrain.SwinTransformer',
            img_size=64,
            arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 4]),
        ),
        dict(
            type='mmpretrain.ConvNeXt', arch=dict(depths=(1, 1, 2, 1), channels=(16, 32, 64, 128))
        ),
    ],
    ids=['swin', 'convnext'],
)
def test_classifiers_of_the_library_are_teachers(tmp_path, backbone):
    """Their Swin refuses small images and their ConvNeXt hides its map: ours stand in."""
    other = classifier(backbone)
    if 'ConvNeXt' in backbone['type']:
        other['neck'] = None
    dense, cfg = built(other)
    path = str(tmp_path / 'other.pth')
    torch.save(dense.state_dict(), path)
    _, hook = attached(
        classifier(CONVNEXT if other['neck'] is None else SWIN),
        dict(checkpoint=path, config=cfg.model.to_dict()),
    )
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(hook.distillation.teacher(images).logits, dense.eval()(images))


def test_a_backbone_alone_is_a_teacher_of_maps(tmp_path):
    dense, _ = dense_checkpoint(tmp_path, detector())
    torch.save(dense.backbone.state_dict(), tmp_path / 'backbone.pth')
    _, hook = attached(detector(), str(tmp_path / 'backbone.pth'))
    torch.testing.assert_close(
        hook.distillation.teacher(torch.ones(1, 3, 64, 64)).maps[3],
        dense.backbone(torch.ones(1, 3, 64, 64))[3].detach(),
    )


def test_an_auxiliary_head_may_be_for_other_classes(tmp_path):
    other = segmentor()
    other['auxiliary_head']['num_classes'] = 9
    _, checkpoint = dense_checkpoint(tmp_path, other)
    assert attached(segmentor(), checkpoint)[1].distillation.logit_weight == 0.5


def test_a_teacher_for_other_images_names_the_way_on(tmp_path):
    _, checkpoint = dense_checkpoint(tmp_path, classifier())
    model = classifier()
    model['backbone'] = dict(model['backbone'], in_channels=4)
    message = refusal(model, checkpoint, logit_weight=0)
    assert message.startswith(f'teacher {checkpoint}: ') and 'images of other channels' in message
    assert f'load_from={checkpoint!r} without a teacher' in message


def test_bad_teachers(tmp_path):
    model = classifier()
    _, checkpoint = dense_checkpoint(tmp_path, model)
    missing = str(tmp_path / 'missing.pth')
    assert refusal(model, missing).startswith(f'teacher {missing}: ')
    _, seven = dense_checkpoint(tmp_path, classifier(classes=7), 'seven.pth')
    message = refusal(model, seven, logit_weight=0.5)
    assert 'its logits are for other classes: head.fc.weight has shape (7, 128)' in message
    assert "logit_weight=0 of the SpatialSparsityHook in the config's custom_hooks" in message
    _, headless = dense_checkpoint(tmp_path, model, 'headless.pth', cut='backbone')
    assert '2 tensors that this ImageClassifier needs are not there, such as head.fc' in refusal(
        model, headless
    )
    _, bodyless = dense_checkpoint(tmp_path, model, 'bodyless.pth', cut='head')
    assert 'such as backbone.' in refusal(model, bodyless, logit_weight=0)
    assert f'config file {tmp_path}/no.py does not exist' in refusal(
        model, dict(checkpoint=checkpoint, config=f'{tmp_path}/no.py')
    )
    (tmp_path / 'empty.py').write_text('x = 1')
    assert 'empty.py has no model' in refusal(
        model, dict(checkpoint=checkpoint, config=str(tmp_path / 'empty.py'))
    )
    for entries, text in (
        (dict(type='Foo'), 'Foo is not in the'),
        (dict(type='ImageClassifier'), 'missing 1 required'),
    ):
        message = refusal(model, dict(checkpoint=checkpoint, config=entries))
        assert message.startswith(f'teacher {checkpoint}: its model cannot be built: ')
        assert text in message
    vit = classifier(dict(type='VisionTransformer', arch='deit-tiny', img_size=224))
    vit.update(
        neck=None, head=dict(type='VisionTransformerClsHead', num_classes=5, in_channels=192)
    )
    torch.save(built(vit)[0].state_dict(), tmp_path / 'vit.pth')
    assert 'its maps do not match' in refusal(
        model, dict(checkpoint=str(tmp_path / 'vit.pth'), config=vit)
    )
    student, _ = built(model)
    with pytest.raises(ValueError, match='the config of the run has no model'):
        SpatialSparsityHook(teacher=checkpoint).attach(student)


# ---------------------------------------------------------------------- from a model
def dense(model):
    """A dense model like a sparse one, in training mode, with random weights."""
    network, _ = built(dict(model, backbone=dict(model['backbone'], keep_ratios=None)))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.train()


def test_a_model_teaches_what_its_checkpoint_teaches(tmp_path):
    network, checkpoint = dense_checkpoint(tmp_path, segmentor())
    images = torch.randn(2, 3, 64, 64)
    outputs = []
    for teacher in (network, checkpoint):
        _, hook = attached(segmentor(), teacher)
        outputs.append(hook.distillation.teacher(images))
    assert len(outputs[0].maps) == len(outputs[1].maps) == 4
    for ours, theirs in zip(outputs[0].maps, outputs[1].maps):
        assert torch.equal(ours, theirs)
    assert torch.equal(outputs[0].logits, outputs[1].logits)


@pytest.mark.parametrize('logits', [False, True])
def test_a_model_is_frozen_and_evaluates(logits):
    network = dense(classifier())
    teacher = Teacher(network, logits=logits)
    assert teacher.model is (network if logits else network.backbone)
    assert teacher.name == 'ImageClassifier'
    assert not any(module.training for module in teacher.model.modules())
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    image = torch.randn(1, 3, 64, 64)
    with record_maps(network.backbone) as calls:
        expected = network(image) if logits else network.backbone(image)
    outputs = teacher(image)
    assert torch.equal(outputs.maps[-1], calls[0].maps[-1])
    if logits:
        assert torch.equal(outputs.logits, expected)
    else:
        assert outputs.logits is None


def test_a_backbone_that_stands_alone():
    backbone = dense(classifier()).backbone
    image = torch.randn(1, 3, 64, 64)
    outputs = Teacher(backbone, backbone='')(image)
    assert torch.equal(outputs.maps[0], backbone(image)[0])


def test_the_hook_takes_a_model_and_needs_no_config():
    student, _ = built(detector())
    network = dense(detector())
    hook = SpatialSparsityHook(teacher=network)
    for _ in range(2):  # a second training begins with the same teacher
        hook.attach(student.train())
        assert hook.distillation.teacher.model is network.backbone
    losses = student(torch.randn(1, 3, 64, 64), samples(student, 1), mode='loss')
    assert losses['loss_distill_map_3'] > 0
    hook.detach()
    assert hook.distillation is None and not student._forward_hooks


def test_copies_of_a_student_share_a_model():
    student, _ = built(classifier())
    network = dense(classifier())
    hook = SpatialSparsityHook(teacher=network)
    hook.attach(student.train())
    twin = copy.deepcopy(student)
    copied = next(iter(twin._forward_hooks.values())).__self__
    assert copied is not hook
    assert copied.teacher.model is network and copied.distillation.teacher.model is network
    assert 'loss_distill_logits' in twin(torch.randn(2, 3, 64, 64), samples(twin), mode='loss')


def test_models_that_cannot_teach():
    with pytest.raises(UserError, match='teacher: ImageClassifier has no body, which is the stud'):
        Teacher(dense(classifier()), backbone='body')
    with pytest.raises(UserError, match='teacher: SingleStageDetector has no logits to learn from'):
        Teacher(dense(detector()), logits=True)
    sparse, _ = built(classifier())
    with pytest.raises(UserError, match='ImageClassifier has token predictors; give its dense'):
        Teacher(sparse)
    assert all(parameter.requires_grad for parameter in sparse.parameters())
    assert 'its maps do not match' in refusal(classifier(CONVNEXT), dense(classifier()))


def test_a_student_cannot_teach_itself():
    student, cfg = built(classifier())
    other = dense(classifier())
    other.head = student.head
    for teacher in (student, other):
        with pytest.raises(UserError, match='ImageClassifier shares parameters with the model'):
            SpatialSparsityHook(teacher=teacher).attach(student, cfg)
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_from_spec_takes_each_kind(tmp_path):
    network, checkpoint = dense_checkpoint(tmp_path, classifier())
    image = torch.randn(1, 3, 64, 64)
    expected = Teacher(network, logits=True)(image)
    specs = (
        network,
        checkpoint,
        dict(checkpoint=checkpoint),
        dict(checkpoint=checkpoint, config=classifier()),
    )
    for spec in specs:
        teacher = Teacher.from_spec(spec, config(classifier()), 'backbone', True)
        assert torch.equal(teacher(image).logits, expected.logits)


def adapted(model):
    """A config with mmpretrain's adapter around the backbone."""
    import mmpretrain.models  # noqa: F401

    targets = [dict(type='qkv'), dict(type='ffn.layers.1')]
    adapter = dict(type='mmpretrain.LoRAModel', module=model['backbone'], rank=2, targets=targets)
    return {**model, 'backbone': adapter}


@pytest.mark.parametrize('make', [classifier, detector])
def test_the_teacher_of_a_student_in_an_adapter_is_plain(tmp_path, make):
    dense, checkpoint = dense_checkpoint(tmp_path, make())
    for teacher in (checkpoint, dict(checkpoint=checkpoint, config=make()), dense):
        student, hook = attached(adapted(make()), teacher)
        losses = student(torch.randn(2, 3, 64, 64), samples(student), mode='loss')
        assert losses['loss_distill_map_0'].requires_grad
        names = [name for name, _ in hook.distillation.teacher.model.named_parameters()]
        assert not any('lora' in name for name in names)
        image = torch.ones(1, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(
                hook.distillation.teacher(image).maps[0], dense.eval().backbone(image)[0]
            )


def test_adapters_inside_of_configs_are_taken_off():
    inner = dict(type='A', keep_ratios=0.7)
    adapter = dict(type='mmpretrain.LoRAModel', module=inner, rank=2)
    assert without_adapters(dict(backbone=adapter, heads=[adapter, 1])) == dict(
        backbone=inner, heads=[inner, 1]
    )
    assert without_adapters(dict(adapter, module=dict(type='C', backbone=adapter))) == dict(
        type='C', backbone=inner
    )
    assert without_adapters(dict(type='Other', module=inner)) == dict(type='Other', module=inner)
