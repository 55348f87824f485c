"""tools/analysis_tools/benchmark.py on tiny networks; how it times is tested elsewhere."""

import csv
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dynsp_mm import create_backbone
from dynsp_mm.analysis import count_macs, machine
from dynsp_mm.analysis.measurements import Measurement
from dynsp_mm.ops import BACKENDS
from dynsp_mm.tooling import measuring
from dynsp_mm.tooling.commands import benchmark
from dynsp_mm.tooling.runs import run_tool
from dynsp_mm.training import Teacher

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/analysis_tools/benchmark.py'
CONFIG = """
default_scope = 'mmpretrain'
model = dict(type='ImageClassifier',
             backbone=dict(type='DynamicSwin', keep_ratios=(0.7, 0.5, 0.3), arch=dict(
                 embed_dims=16, depths=(1, 1, 4, 1), num_heads=(1, 1, 2, 4))),
             neck=dict(type='GlobalAveragePooling'),
             head=dict(type='LinearClsHead', num_classes=3, in_channels=128))
data_preprocessor = dict(mean=[0, 0, 0], std=[255, 255, 255], num_classes=3)
"""
QUICK = ('--shape', '64', '64', '--rounds', '1', '--warmup', '0')
ATTO = 'dynamic_convnext_atto'


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Runs the tool in this process; what it wrote as JSON, if it did."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root.manager, 'disable', logging.WARNING)  # as the tool does
    monkeypatch.setattr(
        benchmark,
        'measure_bounds',
        lambda device, dtypes: dict(
            macs_per_s={name: 1e9 * (number + 1) for number, name in enumerate(dtypes)},
            copy_bytes_per_s=5e9,
        ),
    )
    (tmp_path / 'net.py').write_text(CONFIG)

    def run(*args):
        monkeypatch.setattr('sys.argv', ['benchmark.py', *map(str, args)])
        threads = torch.get_num_threads()
        try:
            run_tool(benchmark.main)
        finally:
            torch.set_num_threads(threads)
        return json.loads(Path('out.json').read_text()) if Path('out.json').is_file() else None

    return run


def test_table_csv_and_json(tool, capsys):
    content = tool(
        'net.py',
        '--dense',
        '--sparse',
        '0.5',
        '--part',
        'backbone',
        'model',
        '--batch',
        1,
        2,
        '--shape',
        64,
        96,
        *QUICK,
        '--rounds',
        2,
        '--threads',
        1,
        '--json',
        'out.json',
        '--csv',
        'out.csv',
    )
    rows = [Measurement(**row) for row in content['rows']]
    labels = ['net.py', 'net.py@dense', 'net.py@sparse=0.5']
    settings = [
        (part, batch, *size)
        for part in ('backbone', 'model')
        for batch in (1, 2)
        for size in ((64, 96), (64, 64))
    ]
    assert [(row.part, row.batch, row.height, row.width, row.candidate) for row in rows] == [
        (*setting, label) for setting in settings for label in labels
    ]
    for row in rows:
        assert (row.step, row.compiled, row.dtype, row.rounds) == ('inference', False, 'float32', 2)
        assert row.median_s > 0 and row.images_per_s == pytest.approx(row.batch / row.median_s)
        assert 0 < row.ratio_p20 <= row.ratio <= row.ratio_p80
        assert row.macs > 0 and row.peak_bytes > 0
        assert row.rate_share == (
            pytest.approx(row.macs * row.images_per_s / 1e9) if row.part == 'backbone' else None
        )
    for base, dense, sparse in zip(rows[::3], rows[1::3], rows[2::3]):
        assert (base.ratio, base.ratio_p20, base.ratio_p80, base.macs_ratio) == (1, 1, 1, 1)
        assert dense.macs_ratio == dense.macs / base.macs > 1 > sparse.macs_ratio
    per_image = {(row.candidate, row.height, row.width): set() for row in rows}
    for row in rows:
        per_image[row.candidate, row.height, row.width].add(row.macs)
    assert all(len(macs) == 1 for macs in per_image.values())
    assert content['bounds'] == dict(macs_per_s=dict(float32=1e9), copy_bytes_per_s=5e9)
    assert content['finished'] is True
    assert content['hardware'] == dict(machine.hardware(torch.device('cpu')), threads=1)
    assert content['versions'] == machine.versions()
    assert content['dynsp_mm'] == machine.own_version() and content['failures'] == []
    assert content['command'].startswith('benchmark.py net.py --dense --sparse 0.5 ')
    table = list(csv.DictReader(Path('out.csv').read_text().splitlines()))
    assert [row['candidate'] for row in table] == [row.candidate for row in rows]
    assert float(table[2]['ratio']) == rows[2].ratio
    out = capsys.readouterr().out
    assert out.endswith(
        '\n[benchmark] bounds: matrix products 1.0 GMAC/s in float32; copies 5.0 GB/s\n'
    )
    assert out.count('[benchmark] ') == 1 + 8 and '8/8 model, batch 2, 64 x 64, float32: 2 r' in out
    assert out.count('| net.py@sparse=0.5 |') == 8


def test_bounds_are_the_largest_of_several(tool, monkeypatch):
    rates = [2e9, 1e9, 4e9]
    monkeypatch.setattr(
        benchmark,
        'measure_bounds',
        lambda device, dtypes: dict(
            macs_per_s=dict(float32=rates[0]), copy_bytes_per_s=1 / rates.pop(0)
        ),
    )
    content = tool(ATTO, '--batch', 1, 2, *QUICK, '--json', 'out.json')
    assert content['bounds'] == dict(macs_per_s=dict(float32=4e9), copy_bytes_per_s=1e-9)
    assert rates == []
    assert all(
        row['rate_share'] == pytest.approx(row['macs'] * row['images_per_s'] / 4e9)
        for row in content['rows']
    )


def test_macs_are_those_of_the_backbone(tool):
    content = tool(ATTO, '--sparse', '0.7', *QUICK, '--json', 'out.json')
    expected = [
        count_macs(create_backbone(ATTO, **ratios), torch.zeros(1, 3, 64, 64))
        for ratios in ({}, dict(keep_ratios=0.7))
    ]
    assert [row['macs'] for row in content['rows']] == expected
    assert content['rows'][1]['macs_ratio'] == expected[1] / expected[0]


def test_training_in_autocast(tool):
    content = tool(
        'net.py',
        '--part',
        'backbone',
        'model',
        '--train',
        '--dtype',
        'bf16',
        '--batch',
        2,
        *QUICK,
        '--json',
        'out.json',
    )
    assert [(row['part'], row['step'], row['dtype']) for row in content['rows']] == [
        ('backbone', 'training', 'bf16'),
        ('model', 'training', 'bf16'),
    ]
    assert [row['rate_share'] for row in content['rows']] == [None, None]


def test_training_with_teachers(tool, monkeypatch):
    """Sparse candidates have one, dense ones none; of each its own architecture."""
    built = []
    teacher = Teacher.__init__

    def init(self, *args, **kwargs):
        teacher(self, *args, **kwargs)
        built.append(type(self.model).__name__)

    monkeypatch.setattr(Teacher, '__init__', init)
    content = tool(
        ATTO, 'net.py', f'{ATTO}@sparse=0.7', '--train', '--teacher', *QUICK, '--json', 'out.json'
    )
    assert [row['step'] for row in content['rows']] == [
        'training',
        'training with teacher',
        'training with teacher',
    ]
    assert all(row['peak_bytes'] > 0 for row in content['rows'])
    assert built == ['DynamicSwin', 'DynamicConvNeXt']
    # The whole classifier learns from logits too.
    built.clear()
    content = tool(
        'net.py',
        '--part',
        'model',
        '--train',
        '--teacher',
        '--dtype',
        'bf16',
        *QUICK,
        '--json',
        'out.json',
    )
    assert built == ['ImageClassifier'] and content['rows'][0]['dtype'] == 'bf16'


def test_teachers_for_nobody(tool, capsys):
    with pytest.raises(SystemExit):
        tool(ATTO, 'stvit_swin_t', '--train', '--teacher', *QUICK)
    assert capsys.readouterr().err == (
        'ERROR: --teacher: no candidate is sparse, so none has a teacher\n'
    )


def test_shares_are_those_of_the_dtype(tool):
    content = tool(ATTO, *QUICK, '--dtype', 'float32', 'bf16', '--json', 'out.json')
    for row, rate in zip(content['rows'], (1e9, 2e9)):
        assert row['rate_share'] == pytest.approx(row['macs'] / row['median_s'] / rate)


@pytest.mark.parametrize(
    'option,weights,autocast',
    [
        ((), torch.bfloat16, torch.float32),
        (('--autocast', '--backend', 'eager'), torch.bfloat16, torch.float32),
        (('--backend', 'none'), torch.bfloat16, torch.float32),
        (('--autocast', '--backend', 'none'), torch.float32, torch.bfloat16),
    ],
)
def test_reduced_precision_of_a_backbone(tool, monkeypatch, option, weights, autocast):
    used = []
    make = measuring.inference_step

    def inference_step(model, batch, device, dtype):
        used.append((next(model.parameters()).dtype, batch['inputs'].dtype, dtype))
        return make(model, batch, device, dtype)

    monkeypatch.setattr(measuring, 'inference_step', inference_step)
    tool('net.py', 'net.py', *QUICK, '--dtype', 'bf16', *option)
    assert used == [(weights, weights, autocast)] * 2


@pytest.mark.parametrize(
    'options,backends',
    [
        (('--backend', 'eager'), ['eager'] * 2),
        (('--backend', 'none'), [None] * 2),
        (('--train',), [None] * 2),
    ],
)
def test_backends(tool, options, backends):
    content = tool(ATTO, ATTO, *QUICK, *options, '--json', 'out.json')
    assert [row['backend'] for row in content['rows']] == backends


def test_weights_are_counted(tool):
    def held(*options):
        rows = tool(ATTO, *QUICK, *options, '--json', 'out.json')['rows']
        return rows[0]['held_bytes']

    plain = sum(tensor.nbytes for tensor in create_backbone(ATTO).state_dict().values())
    assert held('--backend', 'none') == plain
    assert held('--release-weights') < 1.1 * plain < 1.5 * plain < held()


@pytest.mark.parametrize('option', [('--train',), ('--compile',), ('--backend', 'none')])
def test_who_needs_weights_does_not_release_them(tool, capsys, option):
    with pytest.raises(SystemExit):
        tool(ATTO, *QUICK, '--release-weights', *option)
    assert 'ERROR: --release-weights: only prepared backbones can' in capsys.readouterr().err


@pytest.mark.parametrize(
    'backend,message',
    [
        ('triton', "ERROR: backend='triton': needs a CUDA device, the tensors are on cpu"),
        ('fast', f"argument --backend: 'fast': must be one of {', '.join(BACKENDS)}, none"),
    ],
)
def test_backends_that_cannot_run(tool, monkeypatch, capsys, backend, message):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    with pytest.raises(SystemExit):
        tool(ATTO, *QUICK, '--backend', backend)
    assert message in capsys.readouterr().err


def test_compiled_and_with_weights(tool, monkeypatch, capsys):
    """torch.compile is called, not run; the weights reach every candidate."""
    compiled = []
    monkeypatch.setattr(torch, 'compile', lambda module: compiled.append(module) or module)
    backbone = create_backbone(ATTO)
    torch.nn.init.constant_(backbone.downsample_layers[0][0].weight, 0.125)
    torch.save(backbone.state_dict(), 'weights.pth')
    content = tool(
        ATTO,
        '--sparse',
        '0.7',
        *QUICK,
        '--compile',
        '--checkpoint',
        'weights.pth',
        '--json',
        'out.json',
    )
    assert [row['compiled'] for row in content['rows']] == [True, True]
    for module in compiled:
        assert (module.downsample_layers[0][0].weight == 0.125).all()
    with pytest.raises(SystemExit):
        tool('net.py', *QUICK, '--checkpoint', 'weights.pth')
    assert 'none of its tensors fits net.py' in capsys.readouterr().err


def test_candidates_share_weights(tool, monkeypatch):
    steps = []
    monkeypatch.setattr(
        measuring,
        'inference_step',
        lambda model, batch, *_: steps.append((model, batch)) or (lambda: None),
    )
    monkeypatch.setattr(measuring, 'peak_memory_of', lambda *_: 0)
    tool(ATTO, '--dense', '--sparse', '0.7', *QUICK)
    (first, batch), *others = [(model.state_dict(), batch) for model, batch in steps]
    assert len(others) == 2
    for weights, images in others:
        assert torch.equal(images['inputs'], batch['inputs'])
        for name, value in first.items():
            assert torch.equal(weights[name], value), name


def test_a_setting_that_fails_does_not_end_the_run(tool, monkeypatch, capsys):
    def out_of_memory(steps, *args):
        if torch.is_tensor(steps[0]()[0]) and steps[0]()[0].shape[0] == 2:
            raise RuntimeError('out of memory\nlong story')
        return time_in_turns(steps, *args)

    time_in_turns = measuring.time_in_turns
    monkeypatch.setattr(measuring, 'time_in_turns', out_of_memory)
    with pytest.raises(SystemExit) as caught:
        tool(ATTO, '--batch', 1, 2, 3, *QUICK, '--json', 'out.json')
    assert caught.value.code == 2
    captured = capsys.readouterr()
    setting, reason = 'backbone, batch 2, 64 x 64, float32', 'RuntimeError: out of memory'
    assert f'[benchmark] 2/3 {setting}: {reason}\n' in captured.out
    assert captured.err == (
        f'ERROR: 1 of 3 settings could not be measured; the first: {setting}: {reason}\n'
    )
    content = json.loads(Path('out.json').read_text())
    assert [row['batch'] for row in content['rows']] == [1, 3]
    assert content['failures'] == [dict(setting=setting, reason=reason)] and content['finished']


def test_an_interrupted_run_is_not_finished(tool, monkeypatch):
    def interrupt(steps, *args):
        if Path('out.json').is_file():
            raise KeyboardInterrupt
        return time_in_turns(steps, *args)

    time_in_turns = measuring.time_in_turns
    monkeypatch.setattr(measuring, 'time_in_turns', interrupt)
    with pytest.raises(SystemExit):
        tool(ATTO, '--batch', 1, 2, *QUICK, '--json', 'out.json')
    content = json.loads(Path('out.json').read_text())
    assert [row['batch'] for row in content['rows']] == [1] and content['finished'] is False


@pytest.mark.parametrize(
    'args,text',
    [
        (['no.py'], 'no.py: neither a config file, nor'),
        (['net.py', '--rounds', '0'], '--rounds 0: must be 1 or more'),
        (['net.py', '--warmup', '-1'], '--warmup -1: must be 0 or more'),
        (['net.py', '--batch', '1', '0'], '--batch 0: must be 1 or more'),
        (['net.py', '--threads', '0'], '--threads 0: must be 1 or more'),
        (['net.py', '--min-time', 'nan'], '--min-time nan: must be 0 or more'),
        (['net.py', '--shape', '64', '0'], '--shape 0: must be 1 or more'),
        (['net.py', '--device', 'abacus'], "device 'abacus' is not available: "),
        (['net.py', '--train', '--backend', 'eager'], '--backend eager: only inference without'),
        (
            ['net.py', '--compile', '--backend', 'onednn'],
            '--backend onednn: only inference without',
        ),
        (['net.py', '--teacher'], '--teacher: only training has a teacher; add --train'),
        (['net.py', '--train', '--teacher', '--compile'], '--teacher and --compile: a compiled'),
        (['net.py', '--json', '.'], '--json . is a directory'),
        (['net.py', '--csv', 'no/a.csv'], '--csv no/a.csv: there is no folder no'),
        (['net.py', '--csv', 'a', '--json', 'a'], '--csv and --json name the same file, a'),
        (['net.py', '--checkpoint', 'no.pth'], '--checkpoint no.pth does not exist'),
        (['net.py', ATTO, '--part', 'model'], f'{ATTO} is a backbone: --part model needs configs'),
        (
            ['net.py@depthz=3'],
            'net.py@depthz=3: the backbone cannot be built: DynamicSwin: unknown',
        ),
    ],
)
def test_mistakes(tool, capsys, args, text):
    with pytest.raises(SystemExit) as caught:
        tool(*args)
    err = capsys.readouterr().err
    assert caught.value.code == 2 and len(err.splitlines()) == 1
    assert err.startswith('ERROR: ') and text in err
    assert [path.name for path in Path().iterdir()] == ['net.py']


def test_a_dtype_that_the_device_lacks(tool, monkeypatch, capsys):
    monkeypatch.setitem(machine.DTYPES, 'fp16', torch.bool)
    with pytest.raises(SystemExit):
        tool('net.py', '--dtype', 'fp16')
    assert capsys.readouterr().err.startswith('ERROR: torch.bool does not work on cpu: ')


def test_as_a_program(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TOOL), ATTO, *QUICK, '--csv', 'out.csv'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == '' and f'| {ATTO} |' in done.stdout
    assert re.search(
        r'^\[benchmark\] bounds: matrix products \d+\.\d GMAC/s in float32; copies ',
        done.stdout,
        re.MULTILINE,
    )
    assert [path.name for path in tmp_path.iterdir()] == ['out.csv']
