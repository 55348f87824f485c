"""Pretrained parameters wait while the new parts and the schedule go on."""

import json
import math

import pytest
import torch
from logs import warnings_of
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from toys import SWIN, Images, ToyModel, toy_runner

from dynsp_mm import HoldPretrainedHook
from dynsp_mm.training.new_parameters import find_unloaded, is_new

LR, ITERATIONS, WARM_UP, EPOCHS = 1e-2, 2, 2, 5


class Watch(Hook):
    """Notes each iteration's rates, of pretrained and of new parts, and what it changed."""

    def __init__(self):
        self.rates, self.changed = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        names = {id(p): name for name, p in runner.model.named_parameters()}
        groups = runner.optim_wrapper.optimizer.param_groups
        self.rates.append(
            tuple(
                sorted(
                    {
                        group['lr']
                        for group in groups
                        if is_new(names[id(group['params'][0])]) == new
                    }
                )
                for new in (False, True)
            )
        )
        self.before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        changed = {
            name for name, p in runner.model.named_parameters() if not p.equal(self.before[name])
        }
        self.changed.append({is_new(name) for name in changed})


def train(
    work_dir,
    epochs=None,
    max_epochs=EPOCHS,
    resume=False,
    scheduler_by_iter=True,
    constructor='SpatialSparsityOptimWrapperConstructor',
    backbone=SWIN,
    hooks=(dict(type='SpatialSparsityHook'),),
    iters=None,
    **train_cfg,
):
    watch = Watch()
    runner = Runner(
        model=ToyModel(backbone),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Images(),
            batch_size=4 // ITERATIONS,
            collate_fn=lambda batch: pseudo_collate(batch),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=train_cfg or dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=LR, weight_decay=0.05), constructor=constructor
        ),
        param_scheduler=[
            dict(
                type='LinearLR',
                start_factor=0.1,
                end=WARM_UP,
                convert_to_iter_based=scheduler_by_iter,
            ),
            dict(
                type='CosineAnnealingLR',
                eta_min_ratio=0.01,
                begin=WARM_UP,
                end=EPOCHS,
                convert_to_iter_based=scheduler_by_iter,
            ),
        ],
        custom_hooks=[*hooks, dict(type='HoldPretrainedHook', epochs=epochs, iters=iters), watch],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        randomness=dict(seed=0),
        resume=resume,
        experiment_name=f'test_{work_dir.name}_{epochs}_{iters}_{max_epochs}',
        default_scope='mmengine',
    )
    runner.train()
    return watch


def schedule(step, per_epoch=ITERATIONS):
    """The recipe's curve, written out: linear warm-up, then a cosine to a hundredth."""
    warm_up, total = WARM_UP * per_epoch, EPOCHS * per_epoch
    if step < warm_up:
        return LR * (0.1 + 0.9 * step / (warm_up - 1))
    share = (step - warm_up) / (total - warm_up)
    return LR * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)


@pytest.fixture(scope='module')
def held(tmp_path_factory):
    """A run that holds for three epochs, and its log."""
    work_dir = tmp_path_factory.mktemp('held')
    watch = train(work_dir, 3)
    watch.log = [
        json.loads(line)
        for line in next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    ]
    return watch


def test_rates_are_zero_and_then_the_scheduled_ones(held):
    assert len(held.rates) == EPOCHS * ITERATIONS
    for i, (pretrained, new) in enumerate(held.rates):
        assert new == pytest.approx([schedule(i)]), i
        assert pretrained == pytest.approx([0.0 if i < 3 * ITERATIONS else 0.2 * schedule(i)]), i


def test_schedulers_that_step_by_epoch_too(tmp_path):
    watch = train(tmp_path, 3, scheduler_by_iter=False)
    for i, (pretrained, new) in enumerate(watch.rates):
        epoch = i // ITERATIONS
        assert new == pytest.approx([schedule(epoch, 1)]), i
        assert pretrained == pytest.approx([0.0 if epoch < 3 else 0.2 * schedule(epoch, 1)]), i


def hold_and_go_on(watch, held, count):
    """The first iterations hold, and the others of the run do not."""
    assert len(watch.rates) == count
    assert [rates[0] == [0.0] for rates, _ in zip(watch.rates, range(count))] == [
        i < held for i in range(count)
    ]
    assert watch.changed == [{True} if i < held else {True, False} for i in range(count)]


def test_iterations_of_a_loop_of_epochs(tmp_path):
    """Also where they end within an epoch."""
    watch = train(tmp_path, iters=3, max_epochs=3)
    hold_and_go_on(watch, 3, 6)
    for i, (pretrained, new) in enumerate(watch.rates):
        assert new == pytest.approx([schedule(i)]), i
        assert pretrained == pytest.approx([0.0 if i < 3 else 0.2 * schedule(i)]), i


def test_iterations_of_a_loop_without_epochs(tmp_path):
    watch = train(
        tmp_path, iters=3, scheduler_by_iter=False, type='IterBasedTrainLoop', max_iters=4
    )
    hold_and_go_on(watch, 3, 4)


def test_iterations_resume_where_they_were(tmp_path):
    straight = train(tmp_path / 'straight', iters=3, max_epochs=2)
    first = train(tmp_path / 'killed', iters=3, max_epochs=1)
    second = train(tmp_path / 'killed', iters=3, max_epochs=2, resume=True)
    hold_and_go_on(straight, 3, 4)
    assert first.rates + second.rates == straight.rates


@pytest.mark.parametrize('nothing', [dict(epochs=0), dict(iters=0)])
def test_zero_holds_nothing(tmp_path, nothing):
    watch = train(tmp_path, **nothing, max_epochs=1)
    assert watch.rates[0][0] == pytest.approx([0.2 * schedule(0)])
    assert set(watch.changed[0]) == {True, False}


def test_only_new_parts_learn_while_it_holds(held):
    assert held.changed[: 3 * ITERATIONS] == [{True}] * 3 * ITERATIONS
    assert held.changed[3 * ITERATIONS :] == [{True, False}] * (EPOCHS - 3) * ITERATIONS


@pytest.mark.parametrize('stop', [1, 3, 4])
def test_resumes_where_it_was(held, tmp_path, stop):
    """Stopped while it held, as it ended, and after."""
    first = train(tmp_path, 3, max_epochs=stop)
    second = train(tmp_path, 3, resume=True)
    assert len(first.rates) == stop * ITERATIONS
    assert first.rates + second.rates == held.rates


def test_the_log_shows_honest_rates(held):
    assert [line['lr'] for line in held.log] == pytest.approx([r[0] for r, _ in held.rates])
    assert [line['base_lr'] for line in held.log] == pytest.approx([r[0] for _, r in held.rates])
    assert held.log[0]['lr'] == 0


def test_groups_that_mix_are_an_error(tmp_path):
    with pytest.raises(
        ValueError, match="share a group .*'SpatialSparsityOptimWrapperConstructor'"
    ):
        train(tmp_path, 1, constructor='DefaultOptimWrapperConstructor')


def test_a_dense_model_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='HoldPretrainedHook: ToyModel has no token predictors'):
        train(
            tmp_path,
            1,
            constructor='DefaultOptimWrapperConstructor',
            hooks=[],
            backbone={**SWIN, 'keep_ratios': None},
        )


def test_a_loop_without_epochs_is_an_error(tmp_path):
    with pytest.raises(
        ValueError, match='epochs=1 but the training loop counts iterations; give iters instead'
    ):
        train(tmp_path, 1, scheduler_by_iter=False, type='IterBasedTrainLoop', max_iters=2)


@pytest.mark.parametrize('name', ['epochs', 'iters'])
@pytest.mark.parametrize('number', [-1, 0.5, '5', True])
def test_bad_numbers(name, number):
    with pytest.raises(ValueError, match=f'{name}=.*: must be a whole number >= 0'):
        HOOKS.build({'type': 'HoldPretrainedHook', name: number})


def test_one_number_of_the_two():
    with pytest.raises(ValueError, match='epochs=0, iters=2: give only one'):
        HoldPretrainedHook(epochs=0, iters=2)
    hook = HoldPretrainedHook()
    assert (hook.epochs, hook.iters) == (5, None)
    assert HoldPretrainedHook(epochs=None, iters=2).iters == 2


def test_name_is_registered():
    assert HOOKS.get('HoldPretrainedHook') is HoldPretrainedHook


def test_random_parameters_that_are_held_are_named(tmp_path):
    """Nothing was loaded; a run that is resumed has its weights."""

    def warnings(**kwargs):
        train(tmp_path / 'run', 2, **kwargs)
        return sum(
            path.read_text().count('load_from is not set') for path in tmp_path.rglob('*.log')
        )

    assert warnings(max_epochs=1) == 1 and warnings(max_epochs=2, resume=True) == 1


@pytest.mark.parametrize(
    'hold,said',
    [
        (dict(epochs=2), 'epoch 2 is not over before training ends, at 2'),
        (dict(iters=4), 'iteration 4 is not over before training ends, at 4'),
        (dict(epochs=1), None),
        (dict(iters=3), None),
    ],
)
def test_holding_longer_than_training_is_said(tmp_path, hold, said):
    train(tmp_path, **hold, max_epochs=2)
    lines = [
        line
        for path in tmp_path.rglob('*.log')
        for line in path.read_text().splitlines()
        if 'WARNING - HoldPretrainedHook' in line and 'will not be trained' in line
    ]
    assert len(lines) == bool(said) and all(said in line for line in lines)


def test_random_parameters_that_load_from_does_not_fill_are_named(tmp_path):
    """Such as a head for other classes: it is random, and held all the same."""
    model = ToyModel(SWIN)
    model.head = torch.nn.Linear(4, 3)
    runner = toy_runner(
        tmp_path,
        [dict(type='SpatialSparsityHook'), dict(type='HoldPretrainedHook', iters=1)],
        model,
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=LR),
            constructor='SpatialSparsityOptimWrapperConstructor',
        ),
    )
    hook = next(hook for hook in runner.hooks if isinstance(hook, HoldPretrainedHook))
    state_dict = {**model.state_dict(), 'head.weight': torch.zeros(2, 4)}
    with warnings_of(runner.logger) as said:
        runner.call_hook('after_load_checkpoint', checkpoint=dict(state_dict=state_dict))
        runner.train()
    assert hook._unloaded == ['head.weight']
    assert any('such as head.weight, are not in the checkpoint' in text for text in said)
    state_dict = {f'module.{key}': value for key, value in model.state_dict().items()}
    assert find_unloaded(model, state_dict) == []
    del state_dict['module.backbone.norm3.weight']  # the backbone says what it lacks
    assert find_unloaded(model, state_dict) == []


def test_frozen_new_parts_are_an_error(tmp_path):
    with pytest.raises(ValueError, match='all token predictors and fast paths .* are frozen'):
        train(tmp_path, 1, backbone={**SWIN, 'frozen_stages': 2})


def test_an_interrupted_iteration_leaves_the_scheduled_rates(tmp_path):
    class Interrupt(Hook):
        armed = True

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 1 and self.armed:
                self.armed = False
                raise KeyboardInterrupt

    def runner(hold, **kwargs):
        constructor = 'SpatialSparsityOptimWrapperConstructor'
        return toy_runner(
            tmp_path,
            [dict(type='HoldPretrainedHook', **hold), Interrupt()],
            **{
                'optim_wrapper': dict(optimizer=dict(type='SGD', lr=LR), constructor=constructor),
                **kwargs,
            },
        )

    def rates(runner):
        return {group['lr'] for group in runner.optim_wrapper.param_groups}

    first = runner(dict(epochs=1))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    assert rates(first) == {0.0, LR}
    state = first.optim_wrapper.state_dict()  # as who saves it then
    first.train()
    assert rates(first) == {0.2 * LR, LR}
    assert not any('scheduled_lr' in group for group in first.optim_wrapper.param_groups)
    # Another runner goes on with the optimizer, and holds nothing any more.
    first.optim_wrapper.load_state_dict(state)
    assert rates(first) == {0.0, LR}
    second = runner(dict(epochs=0), optim_wrapper=first.optim_wrapper, backbone=first.model)
    with pytest.raises(KeyboardInterrupt):
        second.train()
    assert rates(second) == {0.2 * LR, LR}
