"""What a training finds in its folder, and when it stops before anything is written."""

import os
from pathlib import Path

import pytest
import torch
from in_memory import SCOPE, fails, make
from mmengine._strategy import DDPStrategy
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import FlexibleRunner

from dynsp_mm.backbones import DynamicConvNeXt
from dynsp_mm.tooling.folder import check_folder

ELSEWHERE = 'give this run a folder of its own: --work-dir DIR'


class FolderTestNet(BaseModel):
    """A backbone and a layer, with what some models have beside."""

    def __init__(self, keep_ratios=None, classes=2, more=(), **kwargs):
        super().__init__()
        arch = dict(depths=[1, 1, 4, 1], channels=[8, 8, 16, 16])
        self.backbone = DynamicConvNeXt(arch, keep_ratios=keep_ratios, **kwargs)
        self.head = torch.nn.Linear(16, classes)
        for name in more:
            self.add_module(name, torch.nn.Linear(2, 2))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.head(self.backbone(inputs)[-1].mean((2, 3)))


class OftenSaved(CheckpointHook):
    """A user's hook with other defaults."""

    def __init__(self, interval=1, **kwargs):
        super().__init__(interval, **kwargs)


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS.module_dict, 'FolderTestNet', FolderTestNet)
    monkeypatch.setitem(HOOKS.module_dict, 'OftenSaved', OftenSaved)
    monkeypatch.chdir(tmp_path)


def config(keep_ratios=None, optimizer='AdamW', model=None, **entries):
    return make(
        SCOPE,
        **{
            'model': dict(type='mmengine.FolderTestNet', keep_ratios=keep_ratios, **(model or {})),
            'work_dir': 'runs/net',
            'optim_wrapper': dict(optimizer=dict(type=optimizer, lr=0.1)),
            'train_cfg': dict(by_epoch=True, max_epochs=2),
            **entries,
        },
    )


def save(path='runs/net/epoch_1.pth', keep_ratios=None, state=True, latest=True, **kwargs):
    """A checkpoint as a training of a model leaves it, the latest of its folder."""
    model = FolderTestNet(keep_ratios, **kwargs)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint = dict(state_dict=model.state_dict())
    if state:
        checkpoint.update(
            meta=dict(epoch=1, iter=4), message_hub={}, optimizer=optimizer.state_dict()
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    if latest:
        (path.parent / 'last_checkpoint').write_text(str(path.absolute()))
    return str(path)


def test_an_empty_folder_stays_as_it_is(tmp_path):
    save('dense.pth', latest=False)
    for resume in (False, True):
        check_folder(config(0.7, load_from=None if resume else 'dense.pth', resume=resume))
    assert sorted(os.listdir(tmp_path)) == ['dense.pth']


# replacing what was given


@pytest.mark.parametrize(
    'entries, key',
    [
        (dict(load_from='{}'), 'load_from'),
        (dict(load_from='file://{cwd}/{}'), 'load_from'),
        (
            dict(custom_hooks=[dict(teacher=dict(checkpoint='{}'))]),
            'custom_hooks.0.teacher.checkpoint',
        ),
        (dict(model=dict(init_cfg=[dict(checkpoint='{}')])), 'model.init_cfg.0.checkpoint'),
        (dict(model=dict(teacher_ckpt='{cwd}/{}')), 'model.teacher_ckpt'),
    ],
)
@pytest.mark.parametrize('link', [None, 'symlink_to', 'hardlink_to'])
def test_what_a_run_is_given_is_not_replaced(entries, key, link, tmp_path):
    """Whatever the entry and the way the file is named."""
    given = save(latest=False)
    if link:
        getattr(Path('given.pth'), link)(Path(given).absolute())
        given = 'given.pth'

    def filled(value):
        if isinstance(value, str):
            return value.replace('{}', given).replace('{cwd}', str(tmp_path))
        if isinstance(value, dict):
            return {name: filled(item) for name, item in value.items()}
        return [filled(item) for item in value]

    entries = filled(entries)
    text = fails(check_folder, config(**entries))
    assert text.startswith(f'{key}=') and given in text and text.endswith(ELSEWHERE)
    assert 'runs/net/epoch_1.pth that it would replace' in text
    entries.pop('model', None)
    check_folder(config(work_dir='runs/other', **entries))


@pytest.mark.parametrize(
    'name, entries, replaced',
    [
        ('net/epoch_3.pth', {}, False),  # of two epochs
        ('net/epoch_3.pth', dict(train_cfg=dict(max_epochs=3)), True),
        ('net/epoch_1.pth', dict(checkpoint=dict(interval=2)), False),
        ('net/epoch_2.pth', dict(checkpoint=dict(interval=5)), True),  # the last one
        ('net/epoch_2.pth', dict(checkpoint=dict(interval=5, save_last=False)), False),
        ('net/epoch_1.pth', dict(checkpoint=dict(interval=5, save_best='acc')), True),
        ('net/epoch_1.pth', dict(checkpoint=None), False),
        ('net/iter_4.pth', {}, False),
        ('net/iter_4.pth', dict(checkpoint=dict(interval=4, by_epoch=False)), True),
        ('net/best_acc_epoch_1.pth', {}, False),
        ('net/best_a_b_epoch_1.pth', dict(checkpoint=dict(save_best='a/b')), True),
        ('net/e001.pth', dict(checkpoint=dict(interval=1, filename_tmpl='e{:03d}.pth')), True),
        ('net/last.pth', dict(checkpoint=dict(interval=1, filename_tmpl='last.pth')), True),
        ('out/net/epoch_1.pth', {}, False),
        ('out/net/epoch_1.pth', dict(checkpoint=dict(interval=1, out_dir='runs/out')), True),
        ('net/epoch_1.pth', dict(checkpoint=dict(interval=1, out_dir='runs/out')), False),
    ],
)
def test_which_names_a_run_writes(name, entries, replaced):
    given = save(f'runs/{name}', latest=False)
    entries = dict(entries)
    if 'checkpoint' in entries:
        hook = entries.pop('checkpoint')
        entries['default_hooks'] = dict(checkpoint=hook and dict(type='CheckpointHook', **hook))
    cfg = config(load_from=given, **entries)
    if replaced:
        assert f'is the file runs/{name} that it would replace' in fails(check_folder, cfg)
    else:
        check_folder(cfg)


def test_hooks_of_users_save_checkpoints_too():
    given = save('runs/net/iter_2.pth', latest=False)
    hook = dict(type='MyCheckpointHook', by_epoch=False, interval=2)
    assert 'iter_2.pth' in fails(check_folder, config(load_from=given, custom_hooks=[hook]))


@pytest.mark.parametrize(
    'hooks',
    [
        dict(default_hooks=dict(checkpoint=None, often=dict(type='CheckpointHook', interval=1))),
        dict(default_hooks=dict(checkpoint=None, often=dict(type=CheckpointHook, interval=1))),
        dict(default_hooks=dict(checkpoint=None, often=dict(type='mmengine.OftenSaved'))),
        dict(default_hooks=dict(checkpoint=dict(type=OftenSaved))),
        dict(
            default_hooks=dict(checkpoint=None),
            custom_hooks=[dict(type='mmengine.hooks.CheckpointHook', interval=1)],
        ),
        dict(
            default_hooks=dict(checkpoint=None),
            custom_hooks=[dict(type=OftenSaved, priority='LOW')],
        ),
        dict(default_hooks=dict(checkpoint=None), custom_hooks=[OftenSaved()]),
    ],
)
def test_hooks_that_save_under_any_key_and_of_any_class(hooks):
    """With the defaults of their own classes."""
    given = save(latest=False)
    assert 'epoch_1.pth that it would replace' in fails(
        check_folder, config(load_from=given, **hooks)
    )


def test_any_iteration_may_be_the_last_of_some_epochs():
    given = save('runs/net/iter_7.pth', latest=False)
    hook = dict(type='CheckpointHook', by_epoch=False, interval=100)
    cfg = config(load_from=given, default_hooks=dict(checkpoint=hook))
    assert 'iter_7.pth that it would replace' in fails(check_folder, cfg)
    hook['save_last'] = False
    check_folder(config(load_from=given, default_hooks=dict(checkpoint=hook)))


# replacing what others left


@pytest.mark.parametrize('left, right', [(None, 0.7), (0.7, None)])
def test_what_a_run_of_another_model_left_is_not_replaced(left, right):
    save(keep_ratios=left)
    kinds = ['sparse', 'dense'] if left else ['dense', 'sparse']
    text = fails(check_folder, config(right))
    assert f'(it is of a {kinds[0]} model, and this one is {kinds[1]})' in text
    assert 'replace runs/net/epoch_1.pth; ' + ELSEWHERE in text


@pytest.mark.parametrize('oldest', ['epoch_1.pth', 'epoch_2.pth'])
def test_the_oldest_and_the_newest_tell_whatever_is_named(oldest):
    save('runs/net/epoch_1.pth')
    save('runs/net/epoch_2.pth', 0.7, latest=False)
    os.utime(f'runs/net/{oldest}', (1, 1))
    for keep_ratios, other in ((0.7, 1), (None, 2)):
        text = fails(check_folder, config(keep_ratios))
        assert f'epoch_{other}.pth is of another model' in text
        assert 'replace runs/net/epoch_1.pth to epoch_2.pth' in text


def test_a_resumed_run_replaces_nothing_that_another_left():
    save('runs/net/epoch_3.pth', latest=False)
    own = save('runs/net/epoch_1.pth', 0.7)
    check_folder(config(0.7, resume=True))  # its two epochs replace none
    longer = dict(train_cfg=dict(by_epoch=True, max_epochs=3))
    text = fails(check_folder, config(0.7, resume=True, **longer))
    assert text.startswith('runs/net/epoch_3.pth is of another model') and own not in text
    save('runs/net/epoch_3.pth', 0.7, latest=False)
    check_folder(config(0.7, resume=True, **longer))


def test_other_places_of_predictors_are_another_model():
    save(keep_ratios=0.7)
    text = fails(check_folder, config(0.7, model=dict(prune_blocks=[1])))
    assert 'only one of the two has backbone.token_predictors.1.' in text


def test_a_run_of_the_same_model_is_repeated():
    save(keep_ratios=0.7)
    check_folder(config(0.7))
    check_folder(config(0.5))


@pytest.mark.parametrize('keep_ratios', [None, 0.7])
@pytest.mark.parametrize(
    'left, model, expected',
    [
        ({}, dict(classes=3), 'head.weight'),
        ({}, dict(more=['mask_head']), '2 tensors that this FolderTestNet needs are not there'),
        (
            dict(more=['mask_head']),
            {},
            '2 of its tensors have no place in this FolderTestNet, such as mask_head.weight',
        ),
    ],
)
def test_another_head_is_another_model(keep_ratios, left, model, expected):
    save(keep_ratios=keep_ratios, **left)
    assert expected in fails(check_folder, config(keep_ratios, model=model))
    check_folder(config(keep_ratios, model=left))


@pytest.mark.parametrize('name', ['auxiliary_head', 'loss_weights'])
def test_what_only_trains_makes_no_other_model(name):
    save(more=[name])
    check_folder(config())
    save()
    check_folder(config(model=dict(more=[name])))


def test_averages_and_tensors_of_modules_that_ran_make_no_other_model():
    path = save(keep_ratios=0.7)
    checkpoint = torch.load(path)
    average = ExponentialMovingAverage(FolderTestNet(0.7))
    checkpoint['ema_state_dict'] = average.state_dict()
    checkpoint['state_dict']['head.scale'] = torch.ones(2)  # made when it first ran
    torch.save(checkpoint, path)
    check_folder(config(0.7))


def test_what_nobody_can_read_is_no_obstacle():
    Path(save()).write_bytes(b'torn')
    Path('runs/net/epoch_2.pth').symlink_to('nowhere.pth')
    check_folder(config(0.7))


# resuming


def test_the_same_run_is_resumed():
    path = save(keep_ratios=0.7)
    check_folder(config(0.7, resume=True))
    check_folder(config(0.5, resume=True, load_from=path, work_dir='runs/other'))


@pytest.mark.parametrize('resume', ['auto', 'always', 1])
def test_any_true_value_resumes_the_latest(resume):
    path = os.path.abspath(save(keep_ratios=0.7))
    check_folder(config(0.7, resume=resume))
    assert f'{path} cannot be resumed' in fails(check_folder, config(resume=resume))


def test_a_file_named_by_resume_is_that_of_the_flexible_runner_alone(caplog):
    save('runs/net/epoch_1.pth', 0.7)
    other = save('runs/other.pth', latest=False)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        check_folder(config(0.7, resume=other))
    finally:
        logger.removeHandler(caplog.handler)
    assert f"resume='{other}': this runner goes on from load_from" in caplog.text
    for kind in ('FlexibleRunner', 'mmengine.runner.FlexibleRunner', FlexibleRunner):
        text = fails(check_folder, config(0.7, resume=other, runner_type=kind))
        assert text.startswith(f'{other} cannot be resumed: it is of a dense model')


@pytest.mark.parametrize(
    'strategy',
    [
        None,
        dict(type='SingleDeviceStrategy'),
        dict(type='mmengine._strategy.SingleDeviceStrategy'),
        dict(type='mmengine.DDPStrategy'),
        dict(type=DDPStrategy),
    ],
)
@pytest.mark.parametrize('runner', ['mmengine.runner.FlexibleRunner', FlexibleRunner])
def test_the_optimizer_is_compared_whatever_the_strategy_is_named(strategy, runner):
    save()
    cfg = config(optimizer='SGD', resume=True, runner_type=runner, strategy=strategy)
    assert 'its optimizer was another than SGD' in fails(check_folder, cfg)


def test_a_strategy_that_keeps_optimizers_in_its_own_way_compares_them_itself():
    save()
    strategy = dict(type='mmengine._strategy.FSDPStrategy')
    runner = dict(runner_type='FlexibleRunner', strategy=strategy)
    check_folder(config(optimizer='SGD', resume=True, **runner))


@pytest.mark.parametrize('named', [False, True])
def test_a_dense_run_is_not_resumed_as_a_sparse_one(named):
    path = os.path.abspath(save())
    cfg = config(0.7, resume=True, load_from=path if named else None)
    assert fails(check_folder, cfg) == (
        f'{path} cannot be resumed: it is of a dense model, and this one is sparse. To begin anew, '
        f'{"leave --resume FILE (or resume=True) out and " if named else ""}take another '
        f'--work-dir. To start from its weights, also give --from-dense {path}.'
    )


def test_nothing_is_advised_that_is_done_already():
    path = os.path.abspath(save())
    taught = dict(custom_hooks=[dict(type='SpatialSparsityHook', teacher='dense.pth')])
    text = fails(check_folder, config(0.7, resume=True, **taught))
    assert text.endswith('sparse. To begin anew, take another --work-dir.')
    cfg = config(0.7, resume=True, load_from=path, work_dir='runs/other', **taught)
    assert fails(check_folder, cfg).endswith('anew, leave --resume FILE (or resume=True) out.')


def test_a_sparse_checkpoint_under_a_dense_config_names_sparse():
    save(keep_ratios=0.7)
    text = fails(check_folder, config(resume=True))
    assert 'this one is dense. If --sparse was forgotten, give it' in text


def test_a_question_is_a_sentence_of_its_own():
    save()
    path = Path('runs/net/epoch_1.pth')
    checkpoint = torch.load(path)
    del checkpoint['state_dict']['head.weight']
    torch.save(checkpoint, path)
    text = fails(check_folder, config(resume=True))
    assert '?;' not in text and '?.' not in text and ' To begin anew, ' in text


@pytest.mark.parametrize(
    'entries, expected',
    [
        (dict(keep_ratios=None), 'it is of a sparse model, and this one is dense. If'),
        (dict(model=dict(prune_blocks=[1])), 'only one of the two has'),
        (dict(model=dict(classes=3)), 'have another size in this FolderTestNet'),
        (
            dict(optimizer='SGD'),
            'its optimizer was another than SGD: it has no dampening, momentum',
        ),
        (
            dict(
                optim_wrapper=dict(
                    optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.1),
                    paramwise_cfg=dict(norm_decay_mult=0.0),
                )
            ),
            'the state of its optimizer is for other groups of parameters',
        ),
    ],
)
def test_another_model_or_optimizer_is_not_resumed(entries, expected):
    path = save(keep_ratios=0.7)
    text = fails(check_folder, config(**{'keep_ratios': 0.7, 'resume': True, **entries}))
    assert expected in text and f'--cfg-options load_from={os.path.abspath(path)}' in text


def test_an_optimizer_of_parameters_in_another_order_is_not_resumed():
    """As constructors sort them: counts are alike, and torch compares no more."""
    path = save(keep_ratios=0.7)
    checkpoint = torch.load(path)
    parameters = list(FolderTestNet(0.7).parameters())
    groups = dict(type='AdamW', lr=0.1, weight_decay=0.1)
    for order, fits in ((parameters, True), (parameters[::-1], False)):
        optimizer = torch.optim.AdamW([dict(params=[parameter]) for parameter in order])
        for parameter in order:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        torch.save(dict(checkpoint, optimizer=optimizer.state_dict()), path)
        cfg = config(
            0.7,
            resume=True,
            optim_wrapper=dict(optimizer=groups, paramwise_cfg=dict(norm_decay_mult=0.0)),
        )
        if fits:
            check_folder(cfg)
        else:
            assert 'for parameters in another order' in fails(check_folder, cfg)


def test_weights_alone_are_not_resumed():
    save(state=False)
    assert 'it holds weights and not the state of a training' in fails(
        check_folder, config(resume=True)
    )


def test_a_torn_checkpoint_is_not_resumed():
    path = Path(save())
    path.write_bytes(path.read_bytes()[:2000])
    text = fails(check_folder, config(resume=True))
    assert 'is damaged or no checkpoint' in text and text.endswith('can be named: --resume FILE')


@pytest.mark.parametrize('text', ['', 'runs/gone/epoch_9.pth'])
def test_the_name_of_the_latest_may_be_wrong(text):
    save()
    Path('runs/net/last_checkpoint').write_text(text)
    check_folder(config())
    assert fails(check_folder, config(resume=True)) == (
        f'runs/net/last_checkpoint names {text!r}, which is no file: name the checkpoint to go on '
        'from, such as runs/net/epoch_1.pth, with --resume FILE, or delete '
        'runs/net/last_checkpoint to begin anew'
    )


def test_a_resumed_run_keeps_its_teacher():
    """It replaces what comes after its start, among that perhaps what it learns from."""
    save(keep_ratios=0.7)
    for epoch in (1, 2):
        teacher = save(f'runs/net/epoch_{epoch}.pth', latest=False, keep_ratios=0.7)
        cfg = config(0.7, resume=True, custom_hooks=[dict(teacher=teacher)])
        if epoch == 1:
            check_folder(cfg)
        else:
            assert fails(check_folder, cfg).startswith(
                "custom_hooks.0.teacher='runs/net/epoch_2.pth'"
            )
