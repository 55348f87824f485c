"""The tables of docs/PERFORMANCE.md."""

import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.speed import run as speed
from dynsp_mm.analysis.measurements import Measurement
from dynsp_mm.tooling import runs

ROOT = Path(__file__).resolve().parents[2]
PERFORMANCE = ROOT / 'docs/PERFORMANCE.md'
ROW = Measurement(
    'backbone',
    'inference',
    False,
    1,
    64,
    96,
    'float32',
    'mmdet::net.py',
    4.0,
    0.25,
    1.0,
    1.0,
    1.0,
    7,
    2000,
    1.0,
    3 * 2**20,
    0.5,
    None,
)
COMMANDS = """
networks: {net: 'mmdet::net.py', wide: 'mmdet::net.py@width=2'}
results: {clock-a: {title: a, args: x}, profile-a: {title: b, args: y}}
"""
PAGE = """Before.
<!-- clock-a -->
old
<!-- end of clock-a -->
between
<!-- profile-a -->
<!-- end of profile-a -->
after
"""


def sections_of(page):
    """Name -> what stands between its marks."""
    return dict(
        re.findall(r'^<!-- ([\w-]+) -->\n(.*?)^<!-- end of \1 -->', page, re.DOTALL | re.MULTILINE)
    )


@pytest.fixture
def tables(tmp_path, monkeypatch):
    for folder in ('benchmarks/speed', 'docs'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'benchmarks/speed/commands.yml').write_text(COMMANDS)
    page = tmp_path / 'docs/PERFORMANCE.md'
    page.write_text(PAGE)
    monkeypatch.setattr(speed, 'ROOT', tmp_path)
    monkeypatch.setattr(report, 'DOCS', tmp_path / 'docs')
    monkeypatch.setattr('sys.argv', ['report', 'performance'])

    def run(**results):
        for name, content in results.items():
            path = tmp_path / f'benchmarks/speed/{name.replace("_", "-")}.json'
            path.write_text(json.dumps(content))
        runs.run_tool(report.main)
        return page.read_text()

    run.page = page
    return run


def test_tables(tables):
    rows = [
        ROW,
        ROW._replace(candidate='mmdet::net.py@width=2@sparse=0.7', ratio=0.5),
        ROW._replace(batch=2, step='training'),
        ROW._replace(part='model', rate_share=None),
        ROW._replace(batch=2, step='training with teacher', rate_share=None),
    ]
    text = tables(
        clock_a=dict(
            bounds=dict(macs_per_s=dict(float32=2e9), copy_bytes_per_s=3e9),
            rows=[row._asdict() for row in rows],
        ),
        profile_a=dict(
            rows=[
                dict(
                    candidate='mmdet::net.py@dense',
                    batch=1,
                    height=8,
                    width=9,
                    dtype='bf16',
                    unprofiled_s=0.3,
                    seconds=dict(norms=1.0, rest=3.0),
                )
            ]
        ),
    )
    assert text.startswith(
        'Before.\n<!-- clock-a -->\n*backbone, inference, batch 1, 64 x 96, '
        'float32, 7 rounds; a large product runs at 2.0 GMAC/s, a large copy '
        'at 3.0 GB/s*\n\n| network'
    )
    lines = [''.join(line.split()) for line in text.splitlines()]
    assert '|net|250|1.000[1.000,1.000]|1.000|3|0.50|' in lines
    assert '|wide@sparse=0.7|250|0.500[1.000,1.000]|1.000|3|0.50|' in lines
    assert '|net,teacher|250|1.000[1.000,1.000]|1.000|3||' in lines
    assert '|net|250|1.000[1.000,1.000]||3||' in lines
    assert text.count('training, batch 2') == 1 and 'old' not in text
    assert '|net@dense|300|25.0%|75.0%|' in lines
    assert lines[-1] == 'after' and 'between' in lines
    assert tables() == text  # again, the same
    rows = [row._replace(held_bytes=5 * 2**20)._asdict() for row in rows]
    text = tables(
        clock_a=dict(bounds=dict(macs_per_s=dict(float32=2e9), copy_bytes_per_s=3e9), rows=rows)
    )
    assert '|net|250|1.000[1.000,1.000]|1.000|3|0.50|5|' in text.replace(' ', '').splitlines()


def test_what_is_not_measured(tables):
    assert tables().count('Not measured yet.') == 2


def test_unknown_result(tables, capsys):
    tables.page.write_text('<!-- clock-b -->\n<!-- end of clock-b -->\n')
    with pytest.raises(SystemExit):
        tables()
    assert capsys.readouterr().err == (
        'ERROR: PERFORMANCE.md: <!-- clock-b --> names no table; '
        'must be one of clock-a, profile-a\n'
    )


def test_the_page_is_complete():
    """What it announces is measured and drawn."""
    text = PERFORMANCE.read_text()
    sections = sections_of(text)
    assert 2 * len(sections) == text.count('<!--') > 16
    without = [
        name
        for name, content in sections.items()
        if not re.match(r'\*.+\*\n\n\| network .*\n\|-.*\n\| \w', content)
    ]
    assert not without, 'sections without a table'
    plots = re.findall(r'!\[.*\]\((.*)\)', text)
    assert len(plots) > 3 and all((ROOT / 'docs' / plot).is_file() for plot in plots)


def test_the_page_shows_the_results(tables):
    """The report would leave it as it is."""
    folder = ROOT / 'benchmarks/speed'
    for path in (*folder.glob('*.json'), folder / 'commands.yml', PERFORMANCE):
        shutil.copy(path, tables.page.parents[1] / path.relative_to(ROOT))
    text, written = PERFORMANCE.read_text(), tables()
    shown = sections_of(text)
    stale = [name for name, content in sections_of(written).items() if content != shown[name]]
    assert not stale, 'tables of other results'
    assert written == text
