"""Keep ratios on their way from the dense network's to the config's."""

import copy
import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODEL_WRAPPERS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys import SWIN, Images, ToyModel, toy_runner

from dynsp_mm import KeepRatioAnnealingHook

TARGETS = SWIN['keep_ratios']


class Watch(Hook):
    """Notes what each forward aims at, in training and in validation."""

    def __init__(self):
        self.train, self.val = [], []

    def before_train(self, runner):
        self.at_start = runner.model.backbone.keep_ratios
        runner.model.backbone.register_forward_pre_hook(self.note)

    def note(self, backbone, args):
        (self.train if backbone.training else self.val).append(backbone.keep_ratios)


def train(work_dir, hook, more=(), **kwargs):
    watch = Watch()
    runner = toy_runner(
        work_dir,
        [
            dict(type='SpatialSparsityHook'),
            dict(type='KeepRatioAnnealingHook', **hook),
            *more,
            watch,
        ],
        **kwargs,
    )
    runner.train()
    watch.left = runner.model.backbone.keep_ratios
    return watch


def logged(work_dir):
    """Ratios in the runs' logs, in order."""
    lines = [
        json.loads(line)
        for path in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for line in path.read_text().splitlines()
    ]
    return [
        tuple(line[f'target_keep_ratio_{k}'] for k in range(3))
        for line in sorted(lines, key=lambda line: line['step'])
    ]


def between(share, start=1.0):
    return tuple(start + share * (target - start) for target in TARGETS)


def epochs(count):
    return dict(train_cfg=dict(by_epoch=True, max_epochs=count))


def test_by_epoch_the_way_is_smooth(tmp_path):
    watch = train(tmp_path, dict(begin=1, end=3), **epochs(4))
    assert watch.at_start == (1.0,) * 3
    assert watch.train[:3] == [(1.0,) * 3] * 3
    for ratios, share in zip(watch.train[3:6], (0.25, 0.5, 0.75)):
        assert ratios == pytest.approx(between(share))
    assert watch.train[6:] == [TARGETS] * 2 and watch.left == TARGETS
    assert logged(tmp_path) == watch.train


def test_a_cosine_that_counts_iterations(tmp_path):
    watch = train(
        tmp_path,
        dict(begin=1, end=5, by_epoch=False, start=0.8, curve='cosine'),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=6),
        log_processor=dict(by_epoch=False),
        train_dataloader=dict(dataset=Images(), batch_size=1, sampler=dict(type='InfiniteSampler')),
    )
    shares = [0, 0, *((1 - math.cos(math.pi * k / 4)) / 2 for k in (1, 2, 3)), 1]
    for ratios, share in zip(watch.train, shares):
        assert ratios == pytest.approx(between(share, 0.8))
    assert watch.train[:2] == [(0.8,) * 3] * 2 and watch.train[-1] == TARGETS
    assert logged(tmp_path) == watch.train


def test_iterations_of_a_loop_of_epochs(tmp_path):
    watch = train(tmp_path, dict(end=3, by_epoch=False))
    assert watch.train == [pytest.approx(between(k / 3)) for k in range(4)]


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(nothing=0)


def validation():
    return dict(
        val_dataloader=dict(
            dataset=Images(), batch_size=4, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        val_cfg=dict(),
        val_evaluator=Evaluator([Nothing()]),
    )


def test_validation_of_averaged_weights_uses_the_ratios_reached(tmp_path):
    watch = train(tmp_path, dict(end=2), [dict(type='EMAHook')], **validation())
    assert watch.val == [pytest.approx(between(0.5)), TARGETS]
    assert watch.left == TARGETS


def test_validation_without_training_uses_the_configs(tmp_path):
    runner = toy_runner(
        tmp_path,
        [dict(type='KeepRatioAnnealingHook', end=2)],
        train_cfg=None,
        train_dataloader=None,
        optim_wrapper=None,
        **validation(),
    )
    runner.val()
    assert runner.model.backbone.keep_ratios == TARGETS


def test_resumes_where_it_was(tmp_path):
    straight = train(tmp_path / 'straight', dict(end=3), **epochs(3))
    first = train(tmp_path / 'killed', dict(end=3), **epochs(1))
    second = train(tmp_path / 'killed', dict(end=3), resume=True, **epochs(3))
    assert second.at_start == first.left == straight.train[2]
    assert first.train + second.train == straight.train
    assert logged(tmp_path / 'killed') == logged(tmp_path / 'straight') == straight.train


def test_tensorboard_shows_the_ratios(tmp_path):
    watch = train(
        tmp_path,
        dict(end=2),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='TensorboardVisBackend')]),
    )
    (folder,) = tmp_path.glob('*/vis_data')
    events = EventAccumulator(str(folder)).Reload()
    for k in range(3):
        scalars = events.Scalars(f'target_keep_ratio_{k}')
        assert [scalar.step for scalar in scalars] == [1, 2, 3, 4]
        assert [scalar.value for scalar in scalars] == pytest.approx([r[k] for r in watch.train])


def warnings(work_dir):
    return [
        line
        for path in work_dir.glob('*/*.log')
        for line in path.read_text().splitlines()
        if 'WARNING - KeepRatioAnnealingHook' in line
    ]


@pytest.mark.parametrize(
    'hook,message',
    [
        (
            dict(begin=1, end=5),
            'change from epoch 1 to 5 but training ends after epoch 2: they reach '
            r'\(0.925, 0.875, 0.825\) and not \(0.7, 0.5, 0.3\)',
        ),
        (
            dict(end=5, by_epoch=False),
            'from iteration 0 to 5 but training ends after iteration 4: they '
            r'reach \(0.76, 0.6, 0.44\)',
        ),
    ],
)
def test_a_span_longer_than_training(tmp_path, hook, message):
    watch = train(tmp_path, hook)
    (line,) = warnings(tmp_path)
    assert re.search(message, line)
    share = 0.25 if hook.get('by_epoch', True) else 0.8
    assert watch.left == pytest.approx(between(share))


@pytest.mark.parametrize('hook', [dict(end=2), dict(end=4, by_epoch=False)])
def test_a_span_as_long_as_training_ends_at_the_targets(tmp_path, hook):
    watch = train(tmp_path, hook)
    assert not warnings(tmp_path) and watch.left == TARGETS


def fake_runner(model, epoch=0):
    return SimpleNamespace(
        model=model,
        train_loop=None,
        epoch=epoch,
        max_epochs=4,
        iter=0,
        train_dataloader=[0] * 2,
        hooks=[],
    )


def test_a_second_training_of_a_wrapped_model_has_the_same_targets():
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    MODEL_WRAPPERS.register_module(name='WrapperOfATest', module=Wrapper, force=True)
    model, hook = ToyModel(SWIN), KeepRatioAnnealingHook(end=4)
    for _ in range(2):
        hook.before_train(fake_runner(Wrapper(model)))
        assert model.backbone.keep_ratios == (1.0,) * 3
        hook.after_train(fake_runner(Wrapper(model), epoch=3))
        assert model.backbone.keep_ratios == pytest.approx(between(0.75))
    hook.before_train(fake_runner(model, epoch=4))
    assert model.backbone.keep_ratios == TARGETS


@pytest.mark.parametrize('curve', ['linear', 'cosine'])
def test_ratios_on_the_way_are_ratios(curve):
    """Never above 1 and never increasing, which setting them checks; from start to target."""
    for targets in [(1.0, 1.0, 1.0), (1.0, 0.9, 1e-9), (0.7, 0.7, 0.1)]:
        model = ToyModel({**SWIN, 'keep_ratios': targets})
        hook = KeepRatioAnnealingHook(end=4, curve=curve)
        for i in range(102):
            hook.before_train(fake_runner(model, epoch=i / 25))
            ratios = model.backbone.keep_ratios
            assert i or ratios == (1.0,) * 3
        assert ratios == targets


def test_a_teacher_inside_keeps_its_ratios():
    model = ToyModel(SWIN)
    model.teacher = ToyModel({**SWIN, 'keep_ratios': (0.9, 0.9, 0.9)}).requires_grad_(False)
    KeepRatioAnnealingHook(end=4).before_train(fake_runner(model))
    assert model.backbone.keep_ratios == (1.0,) * 3
    assert model.teacher.backbone.keep_ratios == (0.9,) * 3


def test_frozen_predictors_without_trained_ones_count():
    model = ToyModel(SWIN).requires_grad_(False)
    KeepRatioAnnealingHook(end=4).before_train(fake_runner(model))
    assert model.backbone.keep_ratios == (1.0,) * 3


def test_a_model_without_predictors_is_an_error():
    with pytest.raises(ValueError, match='KeepRatioAnnealingHook: ToyModel has no token pred'):
        KeepRatioAnnealingHook(end=4).before_train(
            fake_runner(ToyModel({**SWIN, 'keep_ratios': None}))
        )


def test_a_start_below_a_target_is_an_error():
    with pytest.raises(ValueError, match=r'start=0.6: must not be less than .* \(0.7, 0.5, 0.3\)'):
        KeepRatioAnnealingHook(end=4, start=0.6).before_train(fake_runner(ToyModel(SWIN)))


def test_epochs_in_a_loop_without_them_are_an_error(tmp_path):
    with pytest.raises(
        ValueError,
        match='end=2 counts epochs but the training loop counts iter.*set by_epoch=False',
    ):
        train(tmp_path, dict(end=2), train_cfg=dict(type='IterBasedTrainLoop', max_iters=4))


@pytest.mark.parametrize(
    'arguments,message',
    [
        (dict(end=0), 'end=0: must be a whole number >= 1'),
        (dict(end=1.5), 'end=1.5: must be a whole number'),
        (dict(end=True), 'end=True: must be a whole number'),
        (dict(end='2'), "end='2': must be a whole number"),
        (dict(end=2, begin=-1), 'begin=-1: must be a whole number >= 0'),
        (dict(end=2, begin=None), 'begin=None: must be a whole number'),
        (dict(end=2, begin=2), 'begin=2, end=2: begin must be less than end'),
        (dict(end=2, by_epoch=0), 'by_epoch=0: must be True or False'),
        (dict(end=2, start=0), r'start=0: must be a number in \(0, 1\]'),
        (dict(end=2, start=1.1), 'start=1.1: must be'),
        (dict(end=2, start=float('nan')), 'start=nan: must be'),
        (dict(end=2, start=True), 'start=True: must be'),
        (dict(end=2, start='1'), "start='1': must be"),
        (dict(end=2, curve='exp'), "curve='exp': must be one of linear, cosine"),
        (dict(end=2, curve=['linear']), r"curve=\['linear'\]: must be one of"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(dict(type='KeepRatioAnnealingHook', **arguments))


def test_name_is_registered():
    assert HOOKS.get('KeepRatioAnnealingHook') is KeepRatioAnnealingHook


def test_choosing_the_best_among_dense_validations_is_warned_of(tmp_path):
    class Best(Hook):
        save_best = 'metric'

    train(tmp_path, dict(end=2), [Best()])
    (line,) = warnings(tmp_path)
    assert 'chosen by save_best' in line and 'before epoch 2' in line


def test_validation_that_begins_at_the_end_chooses_among_the_configs_ratios(tmp_path):
    class Best(Hook):
        save_best = 'metric'

    ends = dict(end=2), dict(end=4, by_epoch=False)  # of two iterations each
    for k, end in enumerate(ends):
        given = validation()
        given['train_cfg'] = dict(by_epoch=True, max_epochs=3, val_begin=2)
        train(tmp_path / str(k), end, [Best()], **given)
        assert not warnings(tmp_path / str(k))


class Interrupt(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 3:
            raise KeyboardInterrupt


def test_targets_are_the_built_ratios_after_a_run_that_did_not_end(tmp_path):
    model = ToyModel(SWIN)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / '1', dict(end=9), [Interrupt()], backbone=model, **epochs(9))
    assert model.backbone.keep_ratios == pytest.approx(between(1 / 6))
    train(tmp_path / '2', dict(end=4), backbone=model, **epochs(2))  # ends on the way
    watch = train(tmp_path / '3', dict(end=1), backbone=copy.deepcopy(model))
    assert watch.left == TARGETS
    # What somebody sets is a target.
    model.backbone.keep_ratios = (0.6, 0.5, 0.4)
    assert train(tmp_path / '4', dict(end=1), backbone=model).left == (0.6, 0.5, 0.4)


def test_training_that_is_stopped_on_the_way_is_warned_of(tmp_path):
    class Stop(Hook):
        def after_train_epoch(self, runner):
            runner.train_loop.stop_training = True

    watch = train(tmp_path / 'stopped', dict(end=4), [Stop()], **epochs(4))
    (line,) = warnings(tmp_path / 'stopped')
    assert watch.left == pytest.approx(between(0.25))
    assert 'training ended before epoch 4, at keep ratios of (0.925, 0.875, 0.825)' in line
    assert str(TARGETS) in line
    early = dict(type='EarlyStoppingHook', monitor='nothing', rule='greater', patience=1)
    train(tmp_path / 'early', dict(end=4), [early], **epochs(4), **validation())
    before, after = warnings(tmp_path / 'early')
    assert 'the EarlyStoppingHook ends training, also by validations before epoch 4' in before
    assert 'training ended before epoch 4' in after
