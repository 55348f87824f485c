"""What is learnt from a teacher."""

import copy
import json

import pytest
import torch
from golden import Classifier, load, relative_error
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
from logs import warnings_of
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from toys import SWIN, Images

from dynsp_mm import SpatialSparsityHook, record_decisions
from dynsp_mm.recording import OutputRecorder
from dynsp_mm.training import Teacher
from dynsp_mm.training.distillation import Distillation
from dynsp_mm.training.teacher import Outputs

TRAIN = [
    ('dynamic_swin_train', 'dynamic_swin_eval_batch3'),
    ('dynamic_convnext_train', 'dynamic_convnext_eval'),
]


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


# ---------------------------------------------------------------------- what stays as it is
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


@pytest.mark.parametrize('make', [classifier, segmentor])
@pytest.mark.parametrize('own_config', [False, True])
def test_logits_for_other_classes_are_left_out_with_a_word(tmp_path, make, own_config):
    other = make(classes=7)
    _, checkpoint = dense_checkpoint(tmp_path, other)
    teacher = dict(checkpoint=checkpoint, config=other) if own_config else checkpoint
    config(other)  # imports, which warn
    with warnings_of() as said:
        student, hook = attached(make(), teacher)
    (text,) = [text for text in said if 'other classes' in text]
    assert 'only maps are compared' in text and 'logit_weight=0 of the Spat' in text
    assert hook.distillation.logit_weight == 0
    losses = student(torch.randn(2, 3, 64, 64), samples(student), mode='loss')
    assert 'loss_distill_map_0' in losses and 'loss_distill_logits' not in losses
    for weights in (dict(logit_weight=0.5), dict(map_weight=0)):
        message = refusal(make(), teacher, **weights)
        assert 'for other classes' in message and 'logit_weight=0 of the Spat' in message


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


def self_supervised():
    def neck(**arguments):
        return dict(
            type='NonLinearNeck', hid_channels=16, out_channels=16, with_last_bn=False, **arguments
        )

    return dict(
        type='BYOL',
        backbone=dict(SWIN),
        neck=neck(in_channels=128),
        head=dict(
            type='LatentPredictHead',
            loss=dict(type='CosineSimilarityLoss'),
            predictor=neck(in_channels=16, with_avg_pool=False),
        ),
    )


def test_a_model_without_logits_compares_maps(tmp_path):
    """The head of a self-supervised model stands where that of a classifier does."""
    model = self_supervised()
    classifier_cfg = config(classifier())  # imports, which warn
    scope = classifier_cfg.default_scope
    cfg = Config(dict(model=model, default_scope=scope))
    with DefaultScope.overwrite_default_scope(scope):
        student, dense = (
            MODELS.build({**model, 'backbone': {**SWIN, 'keep_ratios': ratios}})
            for ratios in (SWIN['keep_ratios'], None)
        )
    torch.save(dense.state_dict(), tmp_path / 'dense.pth')
    for teacher in (str(tmp_path / 'dense.pth'), dense):
        hook = SpatialSparsityHook(teacher=teacher)
        with warnings_of() as said:
            hook.attach(student, cfg)
        (text,) = [text for text in said if 'logits' in text]
        assert 'only maps are compared' in text and 'logit_weight=0' in text
        assert hook.distillation.logit_weight == 0 and any(hook.distillation.map_weights)
        hook.detach()
    with pytest.raises(ValueError, match='its logits do not match .* computes none, the student n'):
        SpatialSparsityHook(teacher=dense, logit_weight=0.5).attach(student, cfg)


def test_a_teacher_without_logits_gives_maps():
    dense, _ = built(dict(detector(), backbone={**SWIN, 'keep_ratios': None, 'out_indices': (3,)}))
    with warnings_of() as said:
        _, hook = attached(classifier(), dense)
    (text,) = [text for text in said if 'logits' in text]
    assert 'has no logits to learn from' in text and 'only maps are compared' in text
    assert hook.distillation.logit_weight == 0
