"""tools/demo.py: its four steps, without running them."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from dynsp_mm.tooling.commands import demo


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """The programs that the demo started, which wrote what the real ones do."""

    def run(command, cwd, **kwargs):
        assert command[0] == sys.executable and cwd == tmp_path
        if command[1] == '-c':  # does mmcv run on the GPU?
            return SimpleNamespace(returncode=0)
        started.append(command[1:])
        work = tmp_path / demo.OUT
        (work / 'test/now').mkdir(parents=True, exist_ok=True)
        (work / 'last_checkpoint').write_text(str(work / 'epoch_9.pth') + '\n')
        (work / 'test/now/now.json').write_text('{"coco/bbox_mAP": 0.5, "coco/segm_mAP": 0.25}')
        return SimpleNamespace(returncode=int(command[1] == started.fails))

    class Started(list):
        fails = None

    started = Started()
    monkeypatch.setattr(subprocess, 'run', run)
    return started


def test_it_trains_tests_and_draws(steps, tmp_path, capsys):
    demo.main(tmp_path)
    assert [step[0] for step in steps] == [
        'tools/make_demo_data.py',
        'tools/train.py',
        'tools/test.py',
        'tools/analysis_tools/visualize_decisions.py',
    ]
    assert steps[1][1:] == [demo.CONFIG, '--resume']
    assert steps[2][2] == steps[3][2] == str(demo.OUT / 'epoch_9.pth')
    out = capsys.readouterr().out
    assert '=== 4/4 kept regions: python tools/' in out
    assert 'box AP 0.500, mask AP 0.250' in out


def test_a_step_that_fails_ends_it(steps, tmp_path):
    steps.fails = 'tools/train.py'
    with pytest.raises(SystemExit, match='failed with status 1: python tools/train.py'):
        demo.main(tmp_path)
    assert len(steps) == 2
