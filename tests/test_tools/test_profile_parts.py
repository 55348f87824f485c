"""profile_parts.py on tiny networks; the operator classes are tested elsewhere."""

import json
from pathlib import Path

import pytest
import torch

from dynsp_mm.analysis import OPERATOR_CLASSES, machine
from dynsp_mm.tooling.commands import profile
from dynsp_mm.tooling.runs import run_tool

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/profile_parts.py'
ATTO = 'dynamic_convnext_atto'
QUICK = ('--shape', '64', '96', '--rounds', '1', '--warmup', '1')


@pytest.fixture
def tool(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr('sys.argv', ['profile_parts.py', *args])
        threads = torch.get_num_threads()
        try:
            run_tool(profile.main)
        finally:
            torch.set_num_threads(threads)

    return run


def test_table_and_json(tool, capsys):
    tool(ATTO, f'{ATTO}@sparse=0.7', *QUICK, '--batch', '2', '--threads', '1', '--json', 'out.json')
    title, header, _, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith('[profile] 2 x 64 x 96, float32, cpu: ms (share), mean of 1 forwards')
    assert [cell.strip() for cell in header.strip('|').split('|')] == [
        'candidate',
        *OPERATOR_CLASSES,
        'sum',
        'without profiler',
    ]
    content = json.loads(Path('out.json').read_text())
    assert content['hardware']['threads'] == 1 and content['versions'] == machine.versions()
    for row, line, name in zip(content['rows'], lines, (ATTO, f'{ATTO}@sparse=0.7'), strict=True):
        assert (row['candidate'], row['batch'], row['height'], row['width'], row['dtype']) == (
            name,
            2,
            64,
            96,
            'float32',
        )
        assert list(row['seconds']) == list(OPERATOR_CLASSES) and row['unprofiled_s'] > 0
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        assert cells[0] == name and cells[-1] == f'{row["unprofiled_s"] * 1e3:.2f}'
        assert float(cells[-2]) == pytest.approx(sum(row['seconds'].values()) * 1e3, abs=0.01)
        shares = [float(cell.split('(')[1].rstrip('%)')) for cell in cells[1:-2]]
        assert sum(shares) == pytest.approx(100, abs=0.6)
    dense, sparse = (row['seconds'] for row in content['rows'])
    assert dense['predictor'] == 0 < sparse['predictor'] and sparse['matrix products'] > 0


@pytest.mark.parametrize(
    'option,weights,autocast',
    [
        ((), torch.bfloat16, torch.float32),
        (('--autocast', '--backend', 'none'), torch.float32, torch.bfloat16),
        (('--autocast',), torch.bfloat16, torch.float32),
    ],
)
def test_reduced_precision(tool, monkeypatch, option, weights, autocast):
    used = []
    make = profile.inference_step

    def inference_step(model, batch, device, dtype):
        used.append((next(model.parameters()).dtype, batch['inputs'].dtype, dtype))
        return make(model, batch, device, dtype)

    monkeypatch.setattr(profile, 'inference_step', inference_step)
    tool(ATTO, *QUICK, '--dtype', 'bf16', *option)
    assert used == [(weights, weights, autocast)]


@pytest.mark.parametrize(
    'args,text',
    [
        (['no.py'], 'no.py: neither a config file, nor'),
        ([ATTO, '--rounds', '0'], '--rounds 0: must be 1 or more'),
        ([ATTO, '--warmup', '-1'], '--warmup -1: must be 0 or more'),
        ([ATTO, '--batch', '0'], '--batch 0: must be 1 or more'),
        ([ATTO, '--threads', '0'], '--threads 0: must be 1 or more'),
        ([ATTO, '--shape', '64', '0'], '--shape 0: must be 1 or more'),
        ([ATTO, '--device', 'abacus'], "device 'abacus' is not available: "),
        ([ATTO, '--json', '.'], '--json . is a directory'),
        (
            [ATTO + '@depthz=3'],
            f'{ATTO}@depthz=3: the backbone cannot be built: DynamicConvNeXt: unk',
        ),
    ],
)
def test_mistakes(tool, capsys, args, text):
    with pytest.raises(SystemExit) as caught:
        tool(*args)
    err = capsys.readouterr().err
    assert caught.value.code == 2 and len(err.splitlines()) == 1
    assert err.startswith('ERROR: ') and text in err and not list(Path().iterdir())
