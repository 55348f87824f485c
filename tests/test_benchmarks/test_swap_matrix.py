"""benchmarks/swap_matrix.py: its processes, their results and the table."""

import json
import os
from types import SimpleNamespace

import pytest

from benchmarks import swap_matrix
from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling.swap_check import SwapError


@pytest.fixture
def command(monkeypatch, tmp_path):
    def run(*args):
        monkeypatch.setattr(
            'sys.argv',
            [
                'swap_matrix.py',
                '--work-dir',
                str(tmp_path / 'work'),
                '--out',
                str(tmp_path / 'table.md'),
                *args,
            ],
        )
        swap_matrix.main()
        return (tmp_path / 'table.md').read_text()

    run.work = tmp_path / 'work'
    return run


def test_table_and_resuming(command, monkeypatch):
    """Processes and their results; what is computed in them is tested above."""
    names = [f'mmpretrain::a/{name}.py' for name in ('good', 'killed', 'wrong', 'offline')]
    command.work.mkdir()
    (command.work / 'configs.json').write_text(
        json.dumps(
            [[name, 'ConvNeXt', name[-6:-3]] for name in names]
            + [['mmdet::x.py', 'SparseConvNeXt', 'key'], ['mmdet::y.py', 'unreadable', 'no module']]
        )
    )
    calls = command.work / 'calls'

    def check(cfg):
        with open(calls, 'a') as file:
            file.write(f'{cfg.filename}\n')
        if 'killed' in cfg.filename:
            os.kill(os.getpid(), 9)
        if 'wrong' in cfg.filename:
            raise SwapError('lost a | bias')
        if 'offline' in cfg.filename:
            raise ImportError('no BERT')
        return dict(
            size=(8, 9), tensors=4, new=2, error=1e-7, keep_ratios=[0.7], loss=1.5, optimizer='X'
        )

    monkeypatch.setattr(
        swap_matrix.cli,
        'load_config',
        lambda name: SimpleNamespace(
            filename=name, model=dict(language_model=dict(type='Bert')), get=lambda key: {}
        ),
    )
    for function in ('check_backbone', 'check_model'):
        monkeypatch.setattr(swap_matrix.swap_check, function, check)

    def build(cfg):
        if 'offline' in cfg.filename:
            raise ImportError('no BERT')

    monkeypatch.setattr(swap_matrix.harness, 'build_untouched', build)
    with pytest.raises(cli.UserError, match='some checks failed: see'):
        command()
    table = (command.work.parent / 'table.md').read_text()
    assert '**1 of 4** configs, which have 4 distinct ones' in table
    assert '**1 of 3** that can be trained without' in table
    for line in (
        '| mmpretrain::a/good.py (1) | DynamicConvNeXt | 8 x 9 | 4 | 2 | 1.0e-07 | 0.',
        '| mmpretrain::a/good.py | 1.500 | X |',
        'failed: ended by SIGKILL',
        'failed: lost a \\| bias',
        '| mmpretrain::a/offline.py | not buildable: its language model, Bert, and the',
        'the first thing missing: ImportError: no BERT |  |',
        '| mmdet::x.py | SparseConvNeXt: it is pretrained',
        '| mmdet::y.py | its own file cannot be loaded: no module |',
    ):
        assert line in table, line
    count = len(calls.read_text().splitlines())
    assert count == 8
    with pytest.raises(cli.UserError):
        command()
    assert len(calls.read_text().splitlines()) == count  # nothing is done twice
    assert '**1 of 1** configs' in command('--only', 'good')
    with pytest.raises(cli.UserError):
        command('--retry')
    # Both checks of each but the good one.
    assert len(calls.read_text().splitlines()) == count + 6
    with pytest.raises(cli.UserError, match='--only nothing: no config'):
        command('--only', 'nothing')


def test_the_page_says_who_wrote_it():
    text = swap_matrix.PAGE.read_text()
    assert text.startswith(swap_matrix.HEAD.partition('Versions:')[0])
