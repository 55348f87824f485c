"""tools/prepare_data.py: its options and exit status."""
import json
import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'prepare_data.py'


@pytest.fixture
def tool(monkeypatch, capsys):
    """Function that runs the tool: (exit status, stdout, stderr)."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
        status = 0
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()

    return run


def test_exit_status(tool, tmp_path):
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        (root / split / 'a.jpg').touch()
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(dict(
            images=[dict(id=1, file_name='a.jpg')], annotations=[], categories=[])))
    status, out, err = tool('coco', '--root', root, '--allow-subset')
    assert status == 0 and not err
    assert 'annotations/instances_val2017.json    present     1 images (published: 5000)' in out
    status, out, err = tool('coco', '--root', root)
    assert status == 1 and not err
    assert 'expected 118287 images, found 1\n' in out and 'expected 5000 images, lists 1\n' in out


def test_errors_are_one_line(tool, tmp_path):
    bad = tmp_path / 'ADEChallengeData2016.zip'
    bad.write_bytes(b'PK half a download')
    for archives in ([tmp_path], [tmp_path.parent, tmp_path]):
        status, out, err = tool('ade20k', '--root', tmp_path / 'ade', '--archives', *archives)
        assert status == 2 and err.count('\n') == 1
        assert err.startswith(f'ERROR: archive {bad} is damaged or not completely downloaded')
    (tmp_path / 'file').touch()
    status, out, err = tool('coco', '--root', tmp_path / 'file' / 'coco')
    assert status == 1 or 'Not a directory' in err
    assert not (tmp_path / 'ade').exists()
    assert tool('cityscapes')[0] == 2
