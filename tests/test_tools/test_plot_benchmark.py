"""tools/analysis_tools/plot_benchmark.py: what it draws, and its mistakes."""

import json
from pathlib import Path

import matplotlib.figure
import pytest

from dynsp_mm.analysis.measurements import Measurement, to_json
from dynsp_mm.tooling.commands import plot
from dynsp_mm.tooling.runs import run_tool

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/plot_benchmark.py'
BASE = Measurement(
    'backbone',
    'inference',
    False,
    1,
    64,
    64,
    'float32',
    'net',
    4.0,
    0.25,
    1.0,
    1.0,
    1.0,
    5,
    2_000_000_000,
    1.0,
    3 * 2**20,
)
HARDWARE = dict(cpu='CPU', cores=2, threads=1, accelerator=None)


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Runs the tool; the panels that it drew."""
    monkeypatch.chdir(tmp_path)
    drawn = []
    save = matplotlib.figure.Figure.savefig

    def savefig(figure, *args, **kwargs):
        drawn.extend(figure.axes)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, 'savefig', savefig)

    def run(*args):
        monkeypatch.setattr('sys.argv', ['plot_benchmark.py', *args])
        run_tool(plot.main)
        return drawn

    return run


def write(name, *changes):
    Path(name).write_text(
        to_json([BASE._replace(**change) for change in changes], hardware=HARDWARE)
    )


def test_against_side(tool):
    write('a.json', {}, dict(height=128, width=128, median_s=1.0, peak_bytes=12 * 2**20))
    write('b.json', dict(candidate='net2'), dict(candidate='net2', height=256))
    time, memory = tool(
        'a.json', 'b.json', '--out', 'out.png', '--name', 'A=net', '--name', 'B=net2'
    )
    assert Path('out.png').read_bytes().startswith(b'\x89PNG')
    assert [line.get_label() for line in time.lines] == ['A', 'B']
    assert list(time.lines[0].get_xdata()) == [64, 128]
    assert list(time.lines[0].get_ydata()) == [250, 1000]
    assert list(memory.lines[0].get_ydata()) == [3, 12]
    for panel in (time, memory):
        assert (panel.get_xscale(), panel.get_yscale()) == ('log', 'log')
        assert [label.get_text() for label in panel.get_xticklabels()] == ['64', '128']


def test_against_keep_ratio(tool):
    """What has no keep ratio is a dashed line across."""
    write('a.json', {}, *(dict(candidate=f'net@sparse={ratio}') for ratio in (0.9, 0.5)))
    time, _ = tool('a.json', '--out', 'out.pdf', '--against', 'keep_ratio', '--name', 'A=net')
    assert [line.get_label() for line in time.lines] == ['A@sparse=r']
    (across,) = time.collections
    assert across.get_label() == 'A' and across.get_segments()[0].tolist() == [
        [0.5, 250],
        [0.9, 250],
    ]
    assert (time.get_xscale(), time.get_yscale(), time.get_ylim()[0]) == ('linear', 'linear', 0)


@pytest.mark.parametrize(
    'args,text',
    [
        (
            ['a.json'],
            'against=side: needs measurements with two or more values of it; there is only',
        ),
        (
            ['a.json', '--against', 'keep_ratio'],
            'against=keep_ratio: needs measurements with two or',
        ),
        (['no.json'], 'no.json: cannot be read: No such file or directory'),
        (['text.json'], 'text.json: is no JSON file that benchmark.py wrote: '),
        (['batch.json', '--against', 'batch', '--out', 'out.abc'], '--out out.abc: must end as a'),
        (['batch.json', '--against', 'batch', '--out', 'out'], '--out out: must end as a picture'),
        (['batch.json', '--out', 'no/out.png'], '--out no/out.png: there is no folder no'),
        (['batch.json', '--against', 'batch', '--name', 'A'], '--name A: must be TEXT=CANDIDATE'),
        (
            ['batch.json', '--against', 'batch', '--name', 'A=net', '--name', 'A=other'],
            '--name: two lines would have the same name',
        ),
    ],
)
def test_mistakes(tool, capsys, args, text):
    write('a.json', {}, dict(batch=2))
    write('batch.json', {}, dict(batch=2), dict(candidate='other'))
    Path('text.json').write_text(json.dumps(['text']))
    with pytest.raises(SystemExit) as caught:
        tool('--out', 'out.png', *args)
    err = capsys.readouterr().err
    assert caught.value.code == 2 and len(err.splitlines()) == 1
    assert err.startswith('ERROR: ') and text in err
    assert not [path for path in Path().iterdir() if path.suffix != '.json']
