import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from in_memory import SCOPE, fails, make
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, RUNNERS
from mmengine.runner.checkpoint import CheckpointLoader

from dynsp_mm import create_backbone
from dynsp_mm.configuration import parse_ratios
from dynsp_mm.errors import UserError
from dynsp_mm.tooling import runs

ROOT = Path(__file__).resolve().parents[2]


# runner


def test_build_runner(monkeypatch):
    monkeypatch.setattr(runs.Runner, 'from_cfg', lambda cfg: ('default', cfg))
    cfg = make(SCOPE)
    assert runs.build_runner(cfg) == ('default', cfg)
    cfg.runner_type = 'NoSuchRunner'
    assert fails(runs.build_runner, cfg) == ("net.py: runner_type='NoSuchRunner' is not registered")

    class CliTestRunner:
        @classmethod
        def from_cfg(cls, cfg):
            return cls, cfg

    monkeypatch.setitem(RUNNERS.module_dict, 'CliTestRunner', CliTestRunner)
    cfg.runner_type = 'CliTestRunner'
    assert runs.build_runner(cfg) == (CliTestRunner, cfg)


def test_an_adapter_keeps_weights_out_of_checkpoints(tmp_path):
    """As mmpretrain's LoRAModel: its checkpoint lacks what its init_cfg loads."""

    def keep_own(module, state_dict, prefix, metadata):
        for key in [key for key in state_dict if 'own' not in key]:
            del state_dict[key]

    adapter = torch.nn.ModuleDict(dict(module=create_backbone('dynamic_convnext_atto')))
    adapter.own = torch.nn.Linear(2, 2)
    adapter._register_state_dict_hook(keep_own)
    model = torch.nn.ModuleDict(dict(backbone=adapter))
    path = str(tmp_path / 'adapter.pth')
    torch.save(dict(state_dict=model.state_dict()), path)
    assert runs.check_weights(model, path, 'checkpoint') == 0


def test_sparse_weights_for_a_dense_model(tmp_path, caplog):
    """Their predictors would be left out without a word."""
    path = str(tmp_path / 'sparse.pth')
    torch.save(
        dict(
            state_dict={
                f'backbone.{key}': value
                for key, value in create_backbone('dynamic_convnext_atto', keep_ratios=0.7)
                .state_dict()
                .items()
            }
        ),
        path,
    )

    def check(**kwargs):
        caplog.clear()
        runs.check_weights(
            torch.nn.ModuleDict(dict(backbone=create_backbone('dynamic_convnext_atto', **kwargs))),
            path,
            'checkpoint',
        )
        return 'is of a sparse model and this one is dense' in caplog.text

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        assert check() and not check(keep_ratios=0.5)
    finally:
        logger.removeHandler(caplog.handler)


def test_a_part_that_lacks_something(tmp_path):
    """The config, the part and the reason in one line; other errors stay as they are."""
    errors = [
        (ImportError('no module\n  named x'), 'no module named x'),
        (RuntimeError('y is not installed'), 'y is not installed'),
        (NotImplementedError('please install z'), 'please install z'),
        (OSError('cannot reach the hub'), 'cannot reach the hub'),
        (KeyError('a'), None),
        (RuntimeError('shapes'), None),
    ]

    class Head(torch.nn.Module):
        def __init__(self, error):
            raise errors[error][0]

    MODELS.register_module('CliTestHead', force=True, module=Head)
    MODELS.register_module('CliTestModel', force=True, module=lambda head: MODELS.build(head))
    try:

        def build(**head):
            return runs.build_runner(
                make(work_dir=str(tmp_path), model=dict(type='mmengine.CliTestModel', head=head))
            )

        kind = 'mmengine.CliTestHead'
        for i, (error, text) in enumerate(errors):
            if text is None:
                with pytest.raises(type(error), match=error.args[0]):
                    build(type=kind, error=i)
            else:
                assert fails(build, type=kind, error=i) == (
                    f'net.py: {kind} cannot be built: {text}'
                )
        assert fails(build, type='NoSuchHead').startswith(
            'net.py: NoSuchHead is not registered: check its name, or have the config import'
        )
    finally:
        for name in ('CliTestHead', 'CliTestModel'):
            MODELS._module_dict.pop(name)


# the programs


def test_run_tool(capsys):
    def main():
        raise UserError('no luck')

    with pytest.raises(SystemExit) as caught:
        runs.run_tool(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == 'ERROR: no luck\n'
    with pytest.raises(ZeroDivisionError):
        runs.run_tool(lambda: 1 / 0)


def run_python(tool, *args, cwd):
    return subprocess.run(
        [sys.executable, str(ROOT / 'tools' / tool), *args],
        cwd=cwd,
        text=True,
        capture_output=True,
        env={**os.environ, 'PYTHONPATH': ''},
    )


CONFIG = f"""
default_scope = {SCOPE!r}
model = optim_wrapper = train_cfg = test_cfg = test_evaluator = dict(type='A')
train_dataloader = test_dataloader = dict(dataset=dict(type='CocoDataset', data_root='none'))
"""


def test_tools_report_mistakes_without_traceback(write, tmp_path):
    write(CONFIG)
    for tool, args, expected in (
        ('train.py', ['net.py'], f'ERROR: data directory {tmp_path}/none is missing'),
        ('test.py', ['net.py', 'no.pth'], 'ERROR: checkpoint no.pth does not exist\n'),
    ):
        done = run_python(tool, *args, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert expected in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    'script, args, tool, expected',
    [
        (
            'dist_train.sh',
            ['c.py', '4', '--amp'],
            'train.py',
            '--nproc_per_node=4 {tool} c.py --launcher pytorch --amp',
        ),
        (
            'dist_test.sh',
            ['c.py', 'a b.pth', '4', '--tta'],
            'test.py',
            '--nproc_per_node=4 {tool} c.py a b.pth --launcher pytorch --tta',
        ),
        (
            'slurm_train.sh',
            ['part', 'job', 'c.py', 'work', '--amp'],
            'train.py',
            'python -u {tool} c.py --work-dir work --launcher slurm --amp',
        ),
        (
            'slurm_test.sh',
            ['part', 'job', 'c.py', 'a b.pth'],
            'test.py',
            'python -u {tool} c.py a b.pth --launcher slurm',
        ),
    ],
)
def test_launch_scripts(tmp_path, script, args, tool, expected):
    for name in ('python', 'srun'):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)
    env = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'GPUS': '4', 'SRUN_ARGS': '-x n1'}
    path = ROOT / 'tools' / script
    done = subprocess.run([path, *args], env=env, text=True, capture_output=True)
    words = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert ' '.join(words).endswith(expected.format(tool=ROOT / 'tools' / tool))
    assert ('a b.pth' in words) == ('a b.pth' in args)
    if script.startswith('slurm'):
        assert {
            '--partition=part',
            '--job-name=job',
            '--ntasks=4',
            '--gres=gpu:4',
            '-x',
            'n1',
        } <= set(words)
    done = subprocess.run([path, 'c.py'], env=env, text=True, capture_output=True)
    assert done.returncode == 2 and done.stderr.startswith('usage: ')


# errors of this package's own classes


def test_run_tool_prints_our_value_errors_and_passes_others_on(capsys):
    def ours():
        try:
            parse_ratios('best')
        except ValueError as error:  # as mmengine's registry does
            raise type(error)(f'class `X` in y.py: {error}')  # noqa: B904

    with pytest.raises(SystemExit) as caught:
        runs.run_tool(ours)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "ERROR: 'best': must be a number such as 0.7, or numbers with commas between them such as "
        '0.7,0.5,0.3\n'
    )
    with pytest.raises(ValueError, match='invalid literal'):
        runs.run_tool(lambda: int('x'))


def test_find_mistake():
    """What this package says around a mistake is kept; what a registry puts before it is not."""

    def raised(function):
        try:
            function()
        except Exception as error:
            return runs.find_mistake(error)

    def around():
        try:
            raise UserError('inner')
        except UserError as error:
            raise UserError('outer: inner') from error

    def under_another():
        try:
            raise UserError('inner')
        except UserError as error:
            raise RuntimeError('lost') from error

    def hidden():
        try:
            raise UserError('inner')
        except UserError:
            raise RuntimeError('disk full') from None

    assert raised(hidden) is None

    def copied():
        try:
            around()
        except UserError as error:  # as mmengine's registry does
            raise type(error)(f'class `X` in y.py: {error}')  # noqa: B904

    assert str(raised(around)) == str(raised(copied)) == 'outer: inner'
    assert str(raised(under_another)) == 'inner'
    assert raised(lambda: int('x')) is None


def test_quiet():
    logging.disable(logging.NOTSET)
    with runs.quiet():
        assert not logging.getLogger().isEnabledFor(logging.WARNING)
        assert logging.getLogger().isEnabledFor(logging.ERROR)
    assert logging.root.manager.disable == logging.NOTSET


class CliTestNet(BaseModel):
    """Starts anew whenever it is asked to, as some detectors do."""

    def __init__(self):
        super().__init__()
        self.backbone = create_backbone('dynamic_convnext_atto', keep_ratios=0.7)

    def init_weights(self):
        for parameter in self.parameters():
            torch.nn.init.constant_(parameter, 0.5)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return [dict(mean=self.backbone(inputs)[-1].mean())]

    def test_step(self, data):
        return self(data)


def test_weights_come_where_mmengine_loads_them(tmp_path, monkeypatch):
    """After the model started itself; hooks see the checkpoint; nothing global is registered."""
    monkeypatch.setitem(MODELS.module_dict, 'CliTestNet', CliTestNet)
    weights = {f'module.{k}': v + 1 for k, v in CliTestNet().state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / 'net.safetensors')
    schemes = dict(CheckpointLoader._schemes)
    cfg = make(
        SCOPE,
        work_dir=str(tmp_path),
        model=dict(type='mmengine.CliTestNet'),
        load_from=str(tmp_path / 'net.safetensors'),
    )
    runner = runs.build_runner(cfg)
    assert isinstance(runner, runs.Runner) and CheckpointLoader._schemes == schemes
    seen = []

    class Watch(Hook):
        def after_load_checkpoint(self, runner, checkpoint):
            seen.append(set(checkpoint))

    runner.register_hook(Watch())
    runner._init_model_weights()
    assert all((value == 0.5).all() for value in runner.model.parameters())
    runner.load_or_resume()
    assert len(seen) == 1 and 'state_dict' in seen[0]
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, weights[f'module.{key}']), key


def test_a_run_that_resumes_is_left_to_mmengine(monkeypatch):
    monkeypatch.setattr(runs.Runner, 'from_cfg', classmethod(lambda cls, cfg: cls))
    assert runs.build_runner(make(SCOPE, load_from='x.pth', resume=True)) is runs.Runner


def test_unknown_arguments_are_one_mistake(tmp_path, monkeypatch):
    """Those of this package's own classes are found before anything is built."""
    built = []
    monkeypatch.setattr(CliTestNet, '__module__', 'dynsp_mm.tests')
    monkeypatch.setitem(MODELS.module_dict, 'CliTestNet', CliTestNet)
    monkeypatch.setitem(MODELS.module_dict, 'CliTestModel', lambda net: built.append(net))
    model = dict(type='mmengine.CliTestModel', net=dict(type='mmengine.CliTestNet', width=3))
    cfg = make(work_dir=str(tmp_path), model=model)
    assert fails(runs.build_runner, cfg) == 'CliTestNet: unknown argument(s) width=3'
    assert not built


class CliTestData(torch.utils.data.Dataset):
    """Two images that no file holds."""

    metainfo = {}

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(inputs=torch.ones(3, 32, 32))


class CliTestTrained(CliTestNet):
    """Trains, a little."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.backbone(torch.stack(inputs))[-1].mean())


def trained_config(tmp_path, **entries):
    return make(
        SCOPE,
        **{
            'work_dir': str(tmp_path / 'run'),
            'experiment_name': tmp_path.name,  # loggers and visualizers are shared by name
            'model': dict(type='mmengine.CliTestTrained'),
            'train_dataloader': dict(
                batch_size=2,
                num_workers=0,
                dataset=dict(type='mmengine.CliTestData'),
                sampler=dict(type='DefaultSampler', shuffle=False),
            ),
            'optim_wrapper': dict(optimizer=dict(type='SGD', lr=0.0)),
            'env_cfg': {},
            'train_cfg': dict(by_epoch=True, max_epochs=1),
            **entries,
        },
    )


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """A network, and weights in four forms of which one could run code."""
    monkeypatch.setitem(MODELS.module_dict, 'CliTestTrained', CliTestTrained)
    monkeypatch.setitem(DATASETS.module_dict, 'CliTestData', CliTestData)
    weights = {key: value + 1 for key, value in CliTestTrained().state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / 'a.safetensors')
    torch.save(dict(state_dict=weights), tmp_path / 'b.pth')
    torch.save({f'module.{key}': value for key, value in weights.items()}, tmp_path / 'c.pth')
    torch.save(dict(state_dict=weights, more=os.getcwd), tmp_path / 'code.pth')
    return weights


@pytest.mark.parametrize('name', ['a.safetensors', 'b.pth', 'c.pth', 'file://'])
def test_a_runner_that_builds_its_model_late(tmp_path, trained, name):
    path = str(tmp_path / name) if '://' not in name else f'{name}{tmp_path}/b.pth'
    cfg = trained_config(tmp_path, load_from=path, runner_type='FlexibleRunner')
    cfg.strategy = dict(type='SingleDeviceStrategy')
    runner = runs.build_runner(cfg)
    assert isinstance(runner.model, CliTestTrained)
    model = runner.train()
    assert runner.model is not None and (tmp_path / 'run/epoch_1.pth').is_file()
    for key, value in (model or runner.model).state_dict().items():
        if not key.endswith(('running_mean', 'running_var', 'num_batches_tracked')):
            assert torch.equal(value, trained[key]), key


def test_a_late_model_is_checked_as_any(tmp_path, trained):
    cfg = trained_config(tmp_path, runner_type='FlexibleRunner')
    cfg.load_from = str(tmp_path / 'code.pth')
    assert 'was not read: it holds' in fails(runs.build_runner, cfg)
    cfg.load_from = str(tmp_path / 'other.pth')
    other = create_backbone('dynamic_convnext_femto').state_dict()
    torch.save({f'backbone.{key}': value for key, value in other.items()}, cfg.load_from)
    assert fails(runs.build_runner, cfg).startswith(f'load_from {cfg.load_from}: ')


def test_classes_of_users_that_are_no_runners(tmp_path, trained, monkeypatch, caplog):
    """They need no more than mmengine asks of them, and may read files in their own way."""
    calls = []

    class Own:
        @classmethod
        def from_cfg(cls, cfg):
            return cls()

        def train(self):
            calls.append('train')

    class Reads(runs.Runner):
        def load_checkpoint(self, filename, *args, **kwargs):
            calls.append(filename)

    monkeypatch.setitem(RUNNERS.module_dict, 'CliTestOwn', Own)
    monkeypatch.setitem(RUNNERS.module_dict, 'CliTestReads', Reads)
    path = str(tmp_path / 'b.pth')
    for kind in ('CliTestOwn', 'CliTestReads'):
        runs.run_checked(trained_config(tmp_path, load_from=path, runner_type=kind), (), 'train')
    assert calls == ['train', path]


@pytest.mark.parametrize(
    'key, value, named',
    [
        ('optim_wrapper', dict(optimizer=dict(type='SGDX', lr=1.0)), 'SGDX'),
        ('optim_wrapper', dict(type='WrapX', optimizer=dict(type='SGD', lr=1.0)), 'WrapX'),
        (
            'optim_wrapper',
            dict(constructor='ConstructorX', optimizer=dict(type='SGD', lr=1.0)),
            'ConstructorX',
        ),
        ('param_scheduler', [dict(type='SchedulerX')], 'SchedulerX'),
        ('default_hooks', dict(timer=dict(type='HookX')), 'HookX'),
        ('train_cfg', dict(type='LoopX'), 'LoopX'),
        ('visualizer', dict(type='VisualizerX'), 'VisualizerX'),
        ('log_processor', dict(type='ProcessorX'), 'ProcessorX'),
    ],
)
def test_classes_that_no_registry_has_are_named(tmp_path, trained, key, value, named):
    cfg = trained_config(tmp_path, **{key: value})
    assert fails(runs.run_checked, cfg, (), 'train').startswith(
        f'net.py: {named} is not registered: check its name, or have the config import'
    )


@pytest.mark.parametrize('entry', [dict(type='SamplerX'), dict(type='DefaultSampler', seeed=1)])
def test_samplers(tmp_path, trained, entry):
    """A name is named; an argument that a class does not take stays the error of that class."""
    cfg = trained_config(tmp_path)
    cfg.train_dataloader.sampler = entry
    if entry['type'] == 'SamplerX':
        assert 'SamplerX is not registered' in fails(runs.run_checked, cfg, (), 'train')
    else:
        with pytest.raises(TypeError, match='seeed'):
            runs.run_checked(cfg, (), 'train')


def test_errors_of_numbers_inside_stay(monkeypatch, tmp_path):
    """A ValueError of torch or numpy in this package is no mistake of a user."""

    def broken(path):
        raise ValueError('operands could not be broadcast')

    monkeypatch.setattr(runs, 'load_from_anywhere', broken)
    with pytest.raises(ValueError, match='broadcast') as caught:
        runs.check_weights(CliTestNet(), 'x.pth', 'load_from')
    assert not isinstance(caught.value, UserError)
