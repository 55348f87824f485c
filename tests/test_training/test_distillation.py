"""Teachers: what is learnt from them, and that they are nowhere else."""

import copy
import json

import pytest
import torch
from golden import Classifier, load, relative_error
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from torch import nn
from toys import SWIN, Images

import dynsp_mm  # noqa: F401  registers the backbones
from dynsp_mm import SpatialSparsityHook, record_decisions
from dynsp_mm.recording import OutputRecorder, logit_layer
from dynsp_mm.training import Teacher
from dynsp_mm.training.distillation import Distillation
from dynsp_mm.training.teacher import Outputs

CONVNEXT = dict(
    type='DynamicConvNeXt',
    keep_ratios=(0.7, 0.5, 0.3),
    arch=dict(depths=(1, 1, 4, 1), channels=(16, 32, 64, 128)),
)
TRAIN = [
    ('dynamic_swin_train', 'dynamic_swin_eval_batch3'),
    ('dynamic_convnext_train', 'dynamic_convnext_eval'),
]


def classifier(backbone=SWIN, classes=5):
    pooled = backbone['type'] == 'DynamicConvNeXt'
    return dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=None if pooled else dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=classes, in_channels=128),
    )


def segmentor(backbone=SWIN, classes=5):
    return dict(
        type='EncoderDecoder',
        backbone=dict(backbone, out_indices=(0, 1, 2, 3)),
        decode_head=dict(
            type='FCNHead',
            in_channels=128,
            in_index=3,
            channels=8,
            num_convs=1,
            num_classes=classes,
            dropout_ratio=0.0,
        ),
        auxiliary_head=dict(
            type='FCNHead', in_channels=64, in_index=2, channels=8, num_convs=1, num_classes=classes
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


def detector(backbone=SWIN, channels=(16, 32, 64, 128)):
    return dict(
        type='SingleStageDetector',
        backbone=dict(backbone, out_indices=(0, 1, 2, 3)),
        neck=dict(type='FPN', in_channels=list(channels), out_channels=16, num_outs=5),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=3,
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[1.0],
                strides=[4, 8, 16, 32, 64],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        ),
        train_cfg=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
    )


SCOPES = dict(ImageClassifier='mmpretrain', EncoderDecoder='mmseg', SingleStageDetector='mmdet')


def config(model):
    init_default_scope(SCOPES[model['type']])
    __import__(f'{SCOPES[model["type"]]}.models')
    return Config(dict(model=model, default_scope=SCOPES[model['type']]))


def built(model):
    cfg = config(model)
    return MODELS.build(cfg.model), cfg


def samples(model, count=2):
    if isinstance(model, str):
        kind = model
    else:
        kind = type(model).__name__
    result = []
    for i in range(count):
        if kind == 'ImageClassifier':
            from mmpretrain.structures import DataSample

            sample = DataSample().set_gt_label(i)
        elif kind == 'EncoderDecoder':
            from mmseg.structures import SegDataSample

            sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
            sample.gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, 64, 64)))
        else:
            from mmdet.structures import DetDataSample
            from mmengine.structures import InstanceData

            sample = DetDataSample(
                metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64))
            )
            sample.gt_instances = InstanceData(
                bboxes=torch.tensor([[4.0, 4, 30, 30]]), labels=torch.tensor([i])
            )
        result.append(sample)
    return result


def dense_checkpoint(tmp_path, model, name='dense.pth', cut=''):
    """A dense model like a sparse one, with random weights, as a training run saves it."""
    model = copy.deepcopy(model)
    model['backbone'] = dict(model['backbone'], keep_ratios=None)
    dense, _ = built(model)
    for parameter in dense.parameters():
        nn.init.normal_(parameter, std=0.1)
    path = tmp_path / name
    torch.save(
        dict(
            state_dict={
                k: v for k, v in dense.state_dict().items() if not cut or k.startswith(cut)
            },
            meta={},
        ),
        path,
    )
    return dense.eval(), str(path)


def attached(model, teacher, **kwargs):
    student, cfg = built(model)
    hook = SpatialSparsityHook(teacher=teacher, **kwargs)
    hook.attach(student.train(), cfg)
    return student, hook


# ---------------------------------------------------------------------- the release's loss
class Stored:
    """Stands for a teacher whose outputs were stored."""

    name = 'golden file'

    def __init__(self, maps, logits):
        self.outputs = Outputs((maps,), logits)

    def follow(self, parameter):
        pass

    def __call__(self, image):
        return self.outputs


@pytest.mark.parametrize('name,weights', TRAIN)
def test_whole_loss_and_gradients_equal_the_release(
    name, weights, deterministic_gumbel, monkeypatch
):
    """Task, ratio and both distillation terms as the hook adds them to a classifier of mmpretrain.

    Compared are the value and the gradient norm of every parameter.
    """
    golden, source = load(name), load(weights)
    reference = Classifier(source)
    swin = reference.swin
    model, _ = built(
        dict(
            type='ImageClassifier',
            backbone=CONVNEXT if not swin else SWIN,
            neck=dict(type='GlobalAveragePooling') if swin else None,
            head=dict(
                type='LinearClsHead',
                num_classes=reference.head.fc.out_features,
                in_channels=reference.head.fc.in_features,
            ),
        )
    )
    reference.backbone.gap_before_final_norm = not swin
    model.backbone, model.head.fc = reference.backbone, reference.head.fc
    maps, size = golden['teacher_featmap'], [-(-side // 32) for side in source['input'].shape[2:]]
    if maps.dim() == 3:
        maps = maps.unflatten(1, size)
    hook = SpatialSparsityHook(teacher='stored')
    # The probe's image is of another size than the stored outputs.
    monkeypatch.setattr(Distillation, '_compare', lambda *args: None)
    stored = Stored(maps.permute(0, 3, 1, 2), golden['teacher_logits'])
    monkeypatch.setattr(Teacher, 'from_spec', lambda *args, **kwargs: stored)
    hook.attach(model.train())
    from mmpretrain.structures import DataSample

    losses = model(
        source['input'],
        [DataSample().set_gt_label(int(label)) for label in golden['labels']],
        mode='loss',
    )
    total, _ = model.parse_losses(losses)
    assert abs(total.item() / golden['loss'].item() - 1) < 1e-5
    total.backward()

    from dynsp_mm.checkpoints import convert_state_dict

    renamed = dict(convert_state_dict(dict(source['state_dict'])).mapped)
    norms = {renamed[k]: float(v) for k, v in golden['grad_norms'].items() if k in renamed}
    parameters = dict(model.named_parameters())
    assert len(norms) == len(parameters)
    largest = max(norms.values())
    for key, norm in norms.items():
        grad = parameters[key].grad
        assert abs((0.0 if grad is None else float(grad.norm())) - norm) < 1e-5 * largest, key
    logits = reference.head.fc(model.extract_feat(source['input'])[-1])
    assert relative_error(logits, golden['logits']) < 1e-5


# ---------------------------------------------------------------------- what is compared
@pytest.mark.parametrize('backbone', [SWIN, CONVNEXT], ids=['swin', 'convnext'])
def test_classifier(tmp_path, backbone):
    model = classifier(backbone)
    dense, checkpoint = dense_checkpoint(tmp_path, model)
    student, _ = attached(model, checkpoint)
    images = torch.randn(2, 3, 64, 64)
    with OutputRecorder(student, 'backbone', True) as ours:
        losses = student(images, samples(student), mode='loss')
    (call,), logits = ours.take()
    with torch.no_grad(), OutputRecorder(dense, 'backbone', True) as theirs:
        dense(images)
    assert len(call.maps) == 1 and call.maps[0].shape == (2, 128, 2, 2)
    expected = 0.5 * (call.maps[0] - theirs.calls[0].maps[0]).square().mean()
    torch.testing.assert_close(losses['loss_distill_map_0'], expected)
    p, q = theirs.logits.softmax(1), logits.softmax(1)
    torch.testing.assert_close(
        losses['loss_distill_logits'], 0.5 * (p * (p.log() - q.log())).sum(1).mean()
    )
    total, _ = student.parse_losses(losses)
    total.backward()
    assert student.backbone.token_predictors[0].proj.weight.grad.abs().sum() > 0


def test_averaged_maps_are_whole_and_normalised_at_each_position():
    model, _ = built(classifier(CONVNEXT))
    images = torch.randn(2, 3, 64, 96)
    with OutputRecorder(model.eval(), 'backbone', False) as recorder:
        averaged = model.backbone(images)[-1]
    model.backbone.gap_before_final_norm = False
    assert averaged.shape == (2, 128)
    torch.testing.assert_close(recorder.calls[0].maps[0], model.backbone(images)[-1])


def test_segmentor(tmp_path):
    model = segmentor()
    dense, checkpoint = dense_checkpoint(tmp_path, model)
    student, _ = attached(model, checkpoint, map_weight=(0, 0.1, 0.2, 0.3), logit_weight=2)
    images = torch.randn(2, 3, 64, 64)
    with OutputRecorder(student, 'backbone', True) as ours:
        losses = student(images, samples(student), mode='loss')
    (call,), logits = ours.take()
    names = [name for name in losses if name.startswith('loss_distill')]
    assert names == [f'loss_distill_map_{i}' for i in (1, 2, 3)] + ['loss_distill_logits']
    with torch.no_grad():
        maps = dense.backbone(images)
        p = dense(images).softmax(1)
    for level in (1, 2, 3):
        expected = 0.1 * level * (call.maps[level] - maps[level]).square().mean()
        torch.testing.assert_close(losses[f'loss_distill_map_{level}'], expected)
    q = logits.softmax(1)
    torch.testing.assert_close(
        losses['loss_distill_logits'], 2 * (p * (p.log() - q.log())).sum(1).mean()
    )


def test_detector(tmp_path):
    model = detector()
    _, checkpoint = dense_checkpoint(tmp_path, model)
    student, hook = attached(model, checkpoint)
    losses = student(torch.randn(2, 3, 64, 64), samples(student), mode='loss')
    names = [name for name in losses if name.startswith('loss_distill')]
    assert names == [f'loss_distill_map_{i}' for i in range(4)]  # no logits
    # Only the backbone is kept.
    assert type(hook.distillation.teacher.model).__name__ == 'DynamicSwin'


def test_a_backbone_that_is_called_twice(tmp_path):
    """As in semi-supervised training: maps of all calls count alike."""
    model = detector()
    dense, checkpoint = dense_checkpoint(tmp_path, model)
    student, _ = attached(model, checkpoint, keep_ratio_weight=0)
    first, second = torch.randn(2, 3, 64, 64), torch.randn(1, 3, 96, 64)
    plain = student.loss

    def loss(inputs, data_samples):
        student.backbone(second)
        return plain(inputs, data_samples)

    student.loss = loss
    with OutputRecorder(student, 'backbone', False) as ours:
        losses = student(first, samples(student), mode='loss')
    with torch.no_grad():
        terms = [
            (call.maps[3] - dense.backbone(call.image)[3]).square().mean() for call in ours.calls
        ]
    assert len(terms) == 2
    torch.testing.assert_close(losses['loss_distill_map_3'], 0.5 * (terms[0] + terms[1]) / 2)


# ---------------------------------------------------------------------- what switches off
def test_no_teacher_is_built_when_all_weights_are_zero():
    student, hook = attached(classifier(), 'no/such/file.pth', map_weight=0, logit_weight=0)
    assert hook.distillation is None
    assert not any(
        'distill' in name
        for name in student(torch.randn(2, 3, 64, 64), samples(student), mode='loss')
    )


def test_without_logits_only_the_backbone_runs(tmp_path):
    model = classifier()
    _, checkpoint = dense_checkpoint(tmp_path, model)
    student, hook = attached(model, checkpoint, logit_weight=0)
    losses = student(torch.randn(2, 3, 64, 64), samples(student), mode='loss')
    assert 'loss_distill_map_0' in losses and 'loss_distill_logits' not in losses
    assert not hasattr(hook.distillation.teacher.model, 'head')


def test_other_modes_do_not_ask_the_teacher(tmp_path):
    model = classifier()
    _, checkpoint = dense_checkpoint(tmp_path, model)
    student, hook = attached(model, checkpoint)
    asked = []
    hook.distillation.teacher.model.register_forward_hook(lambda *args: asked.append(1))
    images = torch.randn(2, 3, 64, 64)
    student(images)
    student.eval().predict(images)
    assert not asked and not student.backbone._forward_hooks
    student.train()(images, samples(student), mode='loss')
    assert asked == [1] and not student.backbone._forward_hooks
    assert not student.head._forward_hooks


# ---------------------------------------------------------------------- what the teacher is
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


def test_autocast(tmp_path):
    model = classifier()
    _, checkpoint = dense_checkpoint(tmp_path, model)
    student, hook = attached(model, checkpoint)
    dtypes = []
    hook.distillation.teacher.model.head.fc.register_forward_hook(
        lambda module, args, output: dtypes.append(output.dtype)
    )
    with torch.autocast('cpu', torch.bfloat16):
        losses = student(torch.randn(2, 3, 64, 64), samples(student), mode='loss')
    assert dtypes == [torch.bfloat16]
    assert all(losses[key].isfinite() for key in losses)
    student.parse_losses(losses)[0].backward()


def test_looking_beforehand_leaves_the_student_alone(tmp_path):
    model = segmentor(dict(SWIN, frozen_stages=0, norm_eval=True))
    model['decode_head']['norm_cfg'] = dict(type='BN')  # running means
    _, checkpoint = dense_checkpoint(tmp_path, model)
    student, cfg = built(model)
    student.train()
    modes = {name: module.training for name, module in student.named_modules()}
    before = copy.deepcopy(student.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    SpatialSparsityHook(teacher=checkpoint).attach(student, cfg)
    assert torch.equal(torch.rand(4), expected)  # what training draws is not shifted
    assert {name: module.training for name, module in student.named_modules()} == modes
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


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


def test_copies_of_a_student_share_the_teacher(tmp_path):
    model = classifier()
    _, checkpoint = dense_checkpoint(tmp_path, model)
    student, hook = attached(model, checkpoint)
    images = torch.randn(2, 3, 64, 64)
    student(images, samples(student), mode='loss')
    twin = copy.deepcopy(student)
    losses = twin(images, samples(twin), mode='loss')
    assert 'loss_distill_logits' in losses
    assert set(twin.state_dict()) == set(student.state_dict())


def test_nothing_of_an_iteration_is_kept(tmp_path):
    model = classifier()
    _, checkpoint = dense_checkpoint(tmp_path, model)
    student, hook = attached(model, checkpoint)
    student(torch.randn(2, 3, 64, 64), samples(student), mode='loss')
    for recorder in (hook.distillation.recorder, hook.distillation.teacher._recorder):
        assert recorder.calls == [] and recorder.logits is None


def test_averaged_maps_of_each_call():
    model, _ = built(classifier(CONVNEXT))
    with OutputRecorder(model.eval(), 'backbone', False) as recorder:
        for size in (64, 96):
            model.backbone(torch.randn(1, 3, size, size))
    assert [[tuple(m.shape[2:]) for m in call.maps] for call in recorder.calls] == [
        [(2, 2)],
        [(3, 3)],
    ]


@pytest.mark.parametrize(
    'head,weight',
    [
        (dict(type='LinearClsHead'), 0.5),
        (dict(type='LinearClsHead', loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1)), 0.5),
        (dict(type='LinearClsHead', loss=dict(type='CrossEntropyLoss', use_sigmoid=True)), 0),
        (dict(type='MultiLabelLinearClsHead'), 0),
        (dict(type='ArcFaceClsHead'), 0),
    ],
)
def test_by_default_logits_count_where_softmax_makes_classes_of_them(head, weight):
    student, _ = built(dict(classifier(), head=dict(head, num_classes=5, in_channels=128)))
    assert Distillation.logit_weight_of(student, None) == weight
    assert Distillation.logit_weight_of(student, 2.0) == 2.0  # whoever asks for it gets it


def test_one_sparse_backbone_can_learn(tmp_path):
    _, checkpoint = dense_checkpoint(tmp_path, detector())
    student, cfg = built(detector())
    student.second = MODELS.build(dict(SWIN))
    with pytest.raises(ValueError, match=r'has 2 sparse backbones \(backbone, second\)'):
        SpatialSparsityHook(teacher=checkpoint).attach(student, cfg)


def test_a_teacher_for_other_classes_does_where_only_maps_count(tmp_path):
    _, checkpoint = dense_checkpoint(tmp_path, classifier(classes=7))
    _, hook = attached(classifier(), checkpoint, logit_weight=0)
    assert hook.distillation is not None


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    'kwargs,message',
    [
        (dict(teacher='t.pth', map_weight=-1), r'map_weight=-1: must be a number >= 0'),
        (dict(teacher='t.pth', map_weight=(0.5, -0.5)), r'map_weight\[1\]=-0.5: must be a number'),
        (dict(teacher='t.pth', map_weight=()), r'map_weight=\(\): needs a number'),
        (dict(teacher='t.pth', logit_weight=float('inf')), r'logit_weight=inf: must be a number'),
        (dict(teacher='t.pth', logit_weight='1'), r"logit_weight='1': must be a number"),
        (dict(keep_ratio_weight=-1), r'keep_ratio_weight=-1: must be a number'),
        (dict(map_weight=0.5), r'map_weight=0.5: needs a teacher'),
        (dict(logit_weight=0.5), r'logit_weight=0.5: needs a teacher'),
        (dict(teacher=''), r"teacher='': must be the checkpoint"),
        (dict(teacher=dict(config='a.py')), r'teacher=.*must be the checkpoint'),
        (dict(teacher=dict(checkpoint='a.pth', weights=1)), r'teacher=.*must be the checkpoint'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SpatialSparsityHook(**kwargs)


def refusal(model, teacher, **kwargs):
    with pytest.raises(ValueError) as error:
        attached(model, teacher, **kwargs)
    return str(error.value)


def test_bad_teachers(tmp_path):
    model = classifier()
    _, checkpoint = dense_checkpoint(tmp_path, model)
    missing = str(tmp_path / 'missing.pth')
    assert refusal(model, missing).startswith(f'teacher {missing}: ')
    _, seven = dense_checkpoint(tmp_path, classifier(classes=7), 'seven.pth')
    assert 'size mismatch for head.fc.weight' in refusal(model, seven)
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
    for config, text in (
        (dict(type='Foo'), 'Foo is not in the'),
        (dict(type='ImageClassifier'), 'missing 1 required'),
    ):
        message = refusal(model, dict(checkpoint=checkpoint, config=config))
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


def test_maps_that_do_not_match(tmp_path):
    wide = dict(SWIN, arch=dict(embed_dims=32, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4)))
    other = detector(wide, (32, 64, 128, 256))
    _, checkpoint = dense_checkpoint(tmp_path, other)
    message = refusal(detector(), checkpoint)
    assert 'size mismatch' in message  # the student's config with another network's weights
    message = refusal(detector(), dict(checkpoint=checkpoint, config=other))
    assert message == (
        f"teacher {checkpoint}: its maps do not match the student's: on an image of 232 x 264 "
        'it computes (32, 58, 66), (64, 29, 33), (128, 15, 17), (256, 8, 9), the student '
        '(16, 58, 66), (32, 29, 33), (64, 15, 17), (128, 8, 9)'
    )
    # The same channels, but this family rounds sizes down.
    other = detector(CONVNEXT)
    other['backbone']['gap_before_final_norm'] = False
    _, checkpoint = dense_checkpoint(tmp_path, other)
    message = refusal(detector(), dict(checkpoint=checkpoint, config=other))
    assert '(64, 14, 16), (128, 7, 8), the student (16, 58, 66)' in message


def test_weights_for_another_number_of_maps(tmp_path):
    _, checkpoint = dense_checkpoint(tmp_path, detector())
    assert refusal(detector(), checkpoint, map_weight=(0.5, 0.5)) == (
        'map_weight=(0.5, 0.5): needs one weight for each of the 4 maps of the backbone'
    )


def test_a_detector_has_no_logits(tmp_path):
    _, checkpoint = dense_checkpoint(tmp_path, detector())
    assert 'SingleStageDetector has no logits' in refusal(detector(), checkpoint, logit_weight=1)


def test_logit_layers():
    assert logit_layer(built(detector())[0]) is None
    model, _ = built(segmentor())
    assert logit_layer(model) is model.decode_head.conv_seg
    model.decode_head = nn.ModuleList([nn.Linear(1, 1), model.decode_head])  # a cascade's
    assert logit_layer(model) is model.decode_head[-1].conv_seg
    model, _ = built(classifier())
    assert logit_layer(model) is model.head


# ---------------------------------------------------------------------- in a runner
class Labelled(Images):
    def __getitem__(self, index):
        return dict(super().__getitem__(index), data_samples=samples('ImageClassifier')[0])


def run(work_dir, model, teacher, epochs, resume=False, **kwargs):
    cfg = config(model)
    runner = Runner(
        model=cfg.model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Labelled(),
            batch_size=2,
            collate_fn=lambda batch: pseudo_collate(batch),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        resume=resume,
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        custom_hooks=[dict(type='SpatialSparsityHook', teacher=teacher), dict(type='EMAHook')],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        cfg=Config(dict(model=model, default_scope='mmpretrain')),
        experiment_name=f'distil_{work_dir.name}_{epochs}_{resume}',
        default_scope='mmpretrain',
        **kwargs,
    )
    runner.train()
    return runner


def test_checkpoints_of_a_run_load_into_the_plain_config_and_resume(tmp_path):
    model = classifier()
    _, checkpoint = dense_checkpoint(tmp_path, model)
    run(tmp_path / 'run', model, checkpoint, 1)
    saved = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=False)
    plain, _ = built(model)
    assert set(saved['state_dict']) == set(plain.state_dict())
    plain.load_state_dict(saved['state_dict'], strict=True)
    count = sum(len(group['params']) for group in saved['optimizer']['param_groups'])
    assert count == len(list(plain.parameters()))

    def last_step():
        path = max((tmp_path / 'run').glob('*/vis_data/scalars.json'))
        return json.loads(path.read_text().splitlines()[-1])

    assert last_step()['step'] == 2 and 'loss_distill_logits' in last_step()
    runner = run(tmp_path / 'run', model, checkpoint, 2, resume=True)
    assert runner.iter == 4 == last_step()['step']
    assert 'loss_distill_logits' in last_step() and 'loss_distill_map_0' in last_step()
    # The optimizer saw nothing of the teacher.
    teachers = {
        id(p)
        for p in Teacher.from_spec(checkpoint, config(model), 'backbone', True).model.parameters()
    }
    assert not teachers & {
        id(p) for group in runner.optim_wrapper.optimizer.param_groups for p in group['params']
    }


def test_distributed_wrapper_does_not_hold_the_teacher(tmp_path):
    """One process: what DDP broadcasts, reduces and saves are the student's tensors."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    model = classifier()
    _, checkpoint = dense_checkpoint(tmp_path, model)
    student, hook = attached(model, checkpoint)
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(student)
        assert len(wrapped._module_parameters) == len(list(student.parameters()))
        total, _ = student.parse_losses(
            wrapped(torch.randn(2, 3, 64, 64), samples(student), mode='loss')
        )
        total.backward()
        assert 'loss_distill_logits' in student(
            torch.randn(2, 3, 64, 64), samples(student), mode='loss'
        )
    finally:
        dist.destroy_process_group()


def test_decisions_are_recorded_beside(tmp_path):
    """The teacher is dense: it adds nothing to a log of decisions."""
    model = classifier()
    _, checkpoint = dense_checkpoint(tmp_path, model)
    student, _ = attached(model, checkpoint)
    with record_decisions(student) as log:
        student(torch.randn(2, 3, 64, 64), samples(student), mode='loss')
    assert len(log) == 3
