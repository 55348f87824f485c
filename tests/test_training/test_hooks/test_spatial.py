import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from logs import warnings_of
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner, turn_on_activation_checkpointing
from torch.utils.checkpoint import checkpoint
from toys import SWIN, Images, ToyModel, toy_runner

from dynsp_mm import DynamicSwin, SpatialSparsityHook, record_decisions
from dynsp_mm.training import keep_ratio_loss
from dynsp_mm.training.new_parameters import find_sparse_backbones


def attached(backbone=SWIN, **kwargs):
    model, hook = ToyModel(backbone).train(), SpatialSparsityHook(**kwargs)
    hook.attach(model)
    return model, hook


def test_other_modules_may_have_a_plan():
    model = ToyModel(SWIN)
    model.head = torch.nn.Identity()
    model.head.plan = 'a plan'
    SpatialSparsityHook().attach(model)
    assert model.backbone.plan.supervised


def test_adds_the_loss_and_the_ratios():
    model, _ = attached()
    with record_decisions(model) as log:
        losses = model([torch.randn(3, 64, 64)] * 2, mode='loss')
    assert list(losses) == [
        'loss_task',
        'loss_keep_ratio',
        'keep_ratio_0',
        'keep_ratio_1',
        'keep_ratio_2',
    ]
    expected = 10 * keep_ratio_loss([d.mask for d in log.decisions], [0.7, 0.5, 0.3])
    torch.testing.assert_close(losses['loss_keep_ratio'], expected)
    for k, decision in enumerate(log.decisions):
        torch.testing.assert_close(losses[f'keep_ratio_{k}'], decision.keep_ratio.mean())
    total, log_vars = model.parse_losses(losses)
    torch.testing.assert_close(total, losses['loss_task'] + losses['loss_keep_ratio'])
    assert 'keep_ratio_2' in log_vars
    losses['loss_keep_ratio'].backward()
    for name, parameter in model.backbone.token_predictors[0].named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    'args,kwargs', [((), {}), ((), dict(mode='tensor')), ((None, 'tensor'), {})]
)
def test_other_modes_are_left_alone(args, kwargs):
    model, _ = attached()
    assert isinstance(model([torch.randn(3, 64, 64)], *args, **kwargs), torch.Tensor)
    assert not model.backbone.token_predictors[0]._forward_hooks


def test_mode_given_by_position():
    model, _ = attached()
    assert 'loss_keep_ratio' in model([torch.randn(3, 64, 64)], None, 'loss')


def test_weight_zero_only_logs():
    model, _ = attached(keep_ratio_weight=0)
    losses = model([torch.randn(3, 64, 64)], mode='loss')
    assert 'loss_keep_ratio' not in losses and 'keep_ratio_0' in losses


def test_after_an_error_the_next_step_is_clean():
    model, _ = attached()
    with pytest.raises(ValueError, match='must be .B, 3, H, W.'):
        model([torch.randn(4, 64, 64)], mode='loss')
    assert not model.backbone.token_predictors[0]._forward_hooks
    losses = model([torch.randn(3, 64, 64)], mode='loss')
    assert sum(key.startswith('keep_ratio') for key in losses) == 3


def test_detach_leaves_no_trace():
    model, hook = attached()
    hook.detach()
    assert list(model([torch.randn(3, 64, 64)], mode='loss')) == ['loss_task']
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_the_loss_moves_the_ratios_to_their_targets():
    """The ratio loss alone trains the predictors from keeping everything to the budget."""
    torch.manual_seed(0)
    model, _ = attached()
    optimizer = torch.optim.AdamW(model.backbone.token_predictors.parameters(), lr=3e-3)
    images = [torch.randn(3, 128, 128) for _ in range(2)]
    history = []
    for _ in range(60):
        losses = model(images, mode='loss')
        optimizer.zero_grad()
        losses['loss_keep_ratio'].backward()
        optimizer.step()
        history.append([losses[f'keep_ratio_{k}'].item() for k in range(3)])
    assert min(history[0]) > 0.8
    late = torch.tensor(history[-15:]).mean(0)
    assert (late - torch.tensor([0.7, 0.5, 0.3])).abs().max() < 0.15


def run(tmp_path, hooks, backbone=SWIN, iterations=2):
    kept = {}

    class Keep(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            kept.update(outputs)

    runner = Runner(
        model=ToyModel(backbone),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=Images(),
            batch_size=2,
            collate_fn=lambda batch: pseudo_collate(batch),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        custom_hooks=[*hooks, Keep()],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        experiment_name=f'test_{tmp_path.name}',
        default_scope='mmengine',
    )
    runner.train()
    return runner, kept


def test_in_a_runner(tmp_path):
    runner, outputs = run(tmp_path, [dict(type='SpatialSparsityHook')])
    assert {'loss_keep_ratio', 'keep_ratio_0', 'keep_ratio_1', 'keep_ratio_2'} <= set(outputs)
    log = next(tmp_path.glob('*/vis_data/*.json')).read_text()
    assert 'keep_ratio_2' in log
    # Model and checkpoint know nothing of the hook.
    assert not runner.model._forward_hooks
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    plain = ToyModel(SWIN)
    assert set(checkpoint['state_dict']) == set(plain.state_dict())


def test_without_the_hook_training_says_once_that_nothing_holds_the_ratio(tmp_path, caplog):
    model = ToyModel(SWIN).train()
    with caplog.at_level(logging.WARNING):
        from mmengine.logging import MMLogger

        logger = MMLogger.get_instance(f'warn_{tmp_path.name}')
        records = []
        handler = logging.Handler()
        handler.emit = lambda record: records.append(record.getMessage())
        logger.addHandler(handler)
        for _ in range(3):
            model([torch.randn(3, 64, 64)], mode='loss')
    said = [text for text in records if 'nothing holds its keep ratio' in text]
    assert len(said) == 1 and 'SpatialSparsityHook' in said[0]


def test_with_the_hook_it_does_not(tmp_path):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance(f'quiet_{tmp_path.name}')
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger.addHandler(handler)
    model, _ = attached()
    model([torch.randn(3, 64, 64)], mode='loss')
    assert not any('keep ratio' in text for text in records)


def planned(model):
    """A model whose backbone has a plan that can be told of the hook."""
    if not hasattr(model.backbone, 'plan'):
        model.backbone.plan = SimpleNamespace(supervised=False)
    return model


def test_the_backbone_is_told_that_its_ratio_is_held():
    first, second = (planned(ToyModel(SWIN)).train() for _ in range(2))
    hook = SpatialSparsityHook()
    hook.attach(first)
    assert first.backbone.plan.supervised
    hook.attach(second)  # one model at a time
    assert not first.backbone.plan.supervised and second.backbone.plan.supervised
    hook.detach()
    assert not second.backbone.plan.supervised


def test_a_backbone_is_not_told_of_a_hook_that_cannot_start(tmp_path):
    model = planned(ToyModel(SWIN)).train()
    with pytest.raises(ValueError, match='the config of the run has no model'):
        SpatialSparsityHook(teacher=str(tmp_path / 'gone.pth')).attach(model)
    assert not model.backbone.plan.supervised


@pytest.mark.parametrize('weight', [-1, float('nan'), float('inf'), '10', True])
def test_bad_weight(weight):
    with pytest.raises(ValueError, match='keep_ratio_weight'):
        HOOKS.build(dict(type='SpatialSparsityHook', keep_ratio_weight=weight))


def test_a_model_without_predictors_is_an_error_before_training(tmp_path):
    with pytest.raises(ValueError, match='ToyModel has no token predictors'):
        run(tmp_path, [dict(type='SpatialSparsityHook')], {**SWIN, 'keep_ratios': None})


def test_a_wrapped_model_is_unwrapped():
    """As in distributed training: the hook listens on the module inside."""
    from mmengine.model import BaseModel as Inner
    from mmengine.registry import MODEL_WRAPPERS

    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    MODEL_WRAPPERS.register_module(name='WrapperOfATest', module=Wrapper, force=True)
    model = ToyModel(SWIN).train()
    assert isinstance(model, Inner)
    hook = SpatialSparsityHook()
    hook.before_train(SimpleNamespace(model=Wrapper(model), cfg=None))
    assert 'loss_keep_ratio' in model([torch.randn(3, 64, 64)], mode='loss')
    # A second time does not add up.
    hook.before_train(SimpleNamespace(model=Wrapper(model), cfg=None))
    hook.after_train(None)
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_frozen_predictors_do_not_count():
    """A teacher inside the model decides as at inference and is neither trained nor logged."""
    model, _ = attached()
    model.teacher = MODELS.build(SWIN).eval()
    student = model.backbone
    model.backbone = torch.nn.Sequential(Both(model.teacher, student))
    losses = model([torch.randn(3, 64, 64)], mode='loss')
    assert sum(key.startswith('keep_ratio') for key in losses) == 3
    assert losses['keep_ratio_0'] > 0.75  # the student's; the teacher keeps 0.69 of 16


@pytest.mark.parametrize('selection', ['topk', 'random'])
def test_a_frozen_copy_in_training_mode_does_not_count(selection):
    """As mmdet's semi-supervised detectors hold one, put into training mode with the rest."""
    backbone = {**SWIN, 'selection': selection}
    model = ToyModel(backbone)
    student, copied = model.backbone, MODELS.build(backbone).requires_grad_(False)
    model.backbone = torch.nn.Sequential(Both(copied, student))
    SpatialSparsityHook().attach(model.train())
    with record_decisions(copied) as theirs, record_decisions(student) as own:
        losses = model([torch.randn(3, 64, 64)], mode='loss')
    assert [name for name in losses if 'keep_ratio_' in name] == [
        f'keep_ratio_{k}' for k in range(3)
    ]
    assert all((d.mask is None) == (selection == 'topk') for d in theirs.decisions)
    expected = keep_ratio_loss([d.mask for d in own.decisions], [0.7, 0.5, 0.3])
    torch.testing.assert_close(losses['loss_keep_ratio'], 10 * expected)
    assert copied.plan.supervised  # it does not say that nothing holds its ratio


def test_a_copy_without_gradients_does_not_count():
    model = ToyModel(SWIN)
    copied = MODELS.build(SWIN)
    run = copied.forward
    copied.forward = lambda x: torch.no_grad()(run)(x)
    model.backbone = torch.nn.Sequential(Both(model.backbone, copied))
    SpatialSparsityHook().attach(model.train())
    losses = model([torch.randn(3, 64, 64)], mode='loss')
    assert sum(name.startswith('keep_ratio_') for name in losses) == 3


def test_numbers_are_those_of_the_predictors():
    model, _ = attached()
    model.backbone.token_predictors[0].requires_grad_(False)
    losses = model([torch.randn(3, 64, 64)], mode='loss')
    assert [name for name in losses if 'keep' in name] == [
        'loss_keep_ratio',
        'keep_ratio_1',
        'keep_ratio_2',
    ]


def test_where_all_are_frozen_nothing_looks_trained():
    model, _ = attached({**SWIN, 'frozen_stages': 2})
    assert list(model([torch.randn(3, 64, 64)], mode='loss')) == ['loss_task']


def test_the_student_is_what_trains():
    """Among backbones with frozen predictors, the one of which anything is trained."""
    model = ToyModel({**SWIN, 'frozen_stages': 2})
    model.teacher = MODELS.build(SWIN).requires_grad_(False)
    assert list(find_sparse_backbones(model, 'A')) == ['backbone']
    model.requires_grad_(False)
    assert list(find_sparse_backbones(model, 'A')) == ['backbone', 'teacher']


def test_predictors_cut_off_by_checkpointing_are_named():
    model, _ = attached()
    turn_on_activation_checkpointing(model, 'backbone.stages.2')
    with warnings_of() as said:
        for _ in range(2):
            model([torch.randn(3, 64, 64)], mode='loss')
    (text,) = [text for text in said if 'loss_keep_ratio' in text]
    assert 'token predictors 0, 1, 2' in text and 'with_cp=True' in text
    model, _ = attached({**SWIN, 'with_cp': True})
    with warnings_of() as said:
        assert model([torch.randn(3, 64, 64)], mode='loss')['loss_keep_ratio'].requires_grad
    assert said == []


def around(kind):
    """A model that trains while its backbone does not."""
    model, hook = attached()
    run, backbone = model.backbone.forward, model.backbone
    if kind == 'eval':
        backbone.eval()
    elif kind == 'no_grad':
        backbone.forward = lambda x: torch.no_grad()(run)(x)
    elif kind == 'torch':
        model.backbone = torch.nn.Sequential(backbone)
        model.backbone.forward = lambda x: checkpoint(backbone, x, use_reentrant=True)
    else:
        model.backbone = torch.nn.Sequential(backbone)
        turn_on_activation_checkpointing(model, 'backbone')
    return model, backbone


@pytest.mark.filterwarnings('ignore:None of the inputs', 'ignore:.*use_reentrant')
@pytest.mark.parametrize(
    'kind,reason',
    [
        ('eval', 'eval mode while the model trains'),
        ('no_grad', 'under torch.no_grad'),
        ('torch', 'of a module around the backbone'),
        ('mmengine', 'set with_cp=True of the backbone instead'),
    ],
)
def test_a_forward_that_trains_no_predictor_is_said_once(kind, reason):
    model, backbone = around(kind)
    with warnings_of() as said:
        for _ in range(2):
            assert 'loss_keep_ratio' not in model([torch.randn(3, 64, 64)], mode='loss')
    (text,) = said
    assert 'token predictors 0, 1, 2' in text and reason in text
    # What is meant so, and losses that nothing trains on, are no fault.
    frozen, evaluated = around(kind), around(kind)
    frozen[1].requires_grad_(False)
    evaluated[0].eval()
    with warnings_of() as said:
        frozen[0]([torch.randn(3, 64, 64)], mode='loss')
        evaluated[0]([torch.randn(3, 64, 64)], mode='loss')
        with torch.no_grad():
            evaluated[0].train()([torch.randn(3, 64, 64)], mode='loss')
    assert said == []


def test_a_backbone_that_is_evaluated_later_is_said():
    model, _ = attached()
    with warnings_of() as said:
        model([torch.randn(3, 64, 64)], mode='loss')
        assert said == []
        model.backbone.eval()
        model([torch.randn(3, 64, 64)], mode='loss')
    assert len(said) == 1


@pytest.mark.parametrize('moment', ['before_run', 'before_train', 'before_train_epoch', 'rates'])
def test_what_a_later_hook_freezes_is_named_once(tmp_path, moment):
    def freeze(runner, *args, **kwargs):
        if moment == 'rates':
            for group in runner.optim_wrapper.param_groups:
                group['lr'] = 0.0
        else:
            runner.model.backbone.requires_grad_(False)

    hook = Hook()
    setattr(hook, 'before_train_iter' if moment == 'rates' else moment, freeze)
    model = ToyModel(SWIN)
    model.head = torch.nn.Linear(128, 128)
    forward = model.forward
    model.forward = lambda *args, **kwargs: with_head(model.head, forward(*args, **kwargs))
    runner = toy_runner(tmp_path, [dict(type='SpatialSparsityHook'), hook], model)
    with warnings_of(runner.logger) as said:
        runner.train()
    (text,) = [text for text in said if 'not trained in this run' in text]
    assert '3 token predictors' in text and '3 fast paths' in text
    assert ('rate is 0' if moment == 'rates' else 'requires_grad=False') in text


def with_head(head, output):
    if isinstance(output, dict):
        output['loss_head'] = head.weight.square().mean()
    return output


def test_a_warm_up_of_ones_own_from_zero_is_no_fault(tmp_path):
    class WarmUp(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            for group in runner.optim_wrapper.param_groups:
                group['lr'] = 1e-3 * runner.iter

    runner = toy_runner(tmp_path, [dict(type='SpatialSparsityHook'), WarmUp()])
    with warnings_of(runner.logger) as said:
        runner.train()
    assert not [text for text in said if 'not trained' in text]


def test_ratios_and_rates_of_an_interrupted_run_are_put_back(tmp_path):
    class Interrupt(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 1:
                raise KeyboardInterrupt

    plain = dict(type='SpatialSparsityHook')
    annealing = dict(type='KeepRatioAnnealingHook', end=2)
    wrapper = dict(
        optimizer=dict(type='SGD', lr=1e-2), constructor='SpatialSparsityOptimWrapperConstructor'
    )
    hooks = [annealing, plain, dict(type='HoldPretrainedHook', epochs=1), Interrupt()]
    first = toy_runner(tmp_path, hooks, optim_wrapper=wrapper)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    model = first.model
    copied = copy.deepcopy(model)
    assert model.backbone.keep_ratios != SWIN['keep_ratios']
    second = toy_runner(tmp_path, [plain], model, optim_wrapper=first.optim_wrapper)
    with warnings_of(second.logger) as said:
        second.train()
    assert model.backbone.keep_ratios == SWIN['keep_ratios']
    assert {group['lr'] for group in second.optim_wrapper.param_groups} == {1e-2, 2e-3}
    assert sum('keep_ratios of backbone are (0.7, 0.5, 0.3) again' in text for text in said) == 1
    assert sum('have their rates again' in text for text in said) == 1
    # A run that anneals again goes its own way, whichever hook comes first.
    third = toy_runner(tmp_path, [annealing, plain], copied)
    with warnings_of(third.logger) as said:
        third.train()
    assert not [text for text in said if 'again' in text]
    assert copied.backbone.keep_ratios == SWIN['keep_ratios']


class Both(torch.nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        self.first(x)
        return self.second(x)


def test_a_loss_that_is_no_dict_is_an_error():
    model, _ = attached()
    model.forward = lambda inputs, data_samples=None, mode='tensor': torch.zeros(1)
    with pytest.raises(TypeError, match='ToyModel.forward.* returned a Tensor: must be a dict'):
        model([torch.randn(3, 64, 64)], mode='loss')


def test_name_is_registered():
    assert HOOKS.get('SpatialSparsityHook') is SpatialSparsityHook
    assert MODELS.get('DynamicSwin') is DynamicSwin


def test_the_hook_of_a_run_that_did_not_end_is_replaced():
    model, left = attached(teacher=ToyModel({**SWIN, 'keep_ratios': None}))
    copied = copy.deepcopy(model)
    for other in (copied, model):
        with warnings_of() as said:
            hook = SpatialSparsityHook(keep_ratio_weight=0)
            hook.attach(other)
        assert sum('replaces the one that was on this ToyModel' in text for text in said) == 1
        losses = other([torch.randn(3, 64, 64)], mode='loss')
        assert set(losses) == {'loss_task', *(f'keep_ratio_{k}' for k in range(3))}
        hook.detach()
        assert not other._forward_hooks and not other._forward_pre_hooks
    assert left.distillation is None


def test_an_interrupted_forward_leaves_nothing_behind():
    model, _ = attached(teacher=ToyModel({**SWIN, 'keep_ratios': None}))

    def interrupt(module, args, output):
        raise KeyboardInterrupt

    handle = model.backbone.stages[3].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model([torch.randn(3, 64, 64)], mode='loss')
    handle.remove()
    assert model([torch.randn(3, 64, 64)], mode='loss')['loss_keep_ratio'].requires_grad
    assert not any(module._forward_hooks for module in model.backbone.modules())


def test_predictors_that_an_outer_init_cfg_drew_start_by_keeping():
    """As mmpretrain's models have one, where the backbone's own initialisation does not follow."""
    model = ToyModel(SWIN)
    for module in model.backbone.token_predictors.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.zeros_(module.bias)
    predictors = model.backbone.token_predictors
    assert all(predictor.is_undecided() and predictor.is_at_start() for predictor in predictors)
    with torch.no_grad():  # one has learnt
        predictors[2].head[-1].bias[0] = 0.1
    SpatialSparsityHook().attach(model)
    assert [predictor.is_at_start() for predictor in predictors] == [True, True, False]
    assert predictors[0].head[-1].bias.tolist() == [1.5, -1.5]
    assert predictors[2].head[-1].bias.tolist() == pytest.approx([0.1, 0])
