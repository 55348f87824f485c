"""tools/prepare_data.py: its options and exit status."""

import json
import runpy
import sys
import zipfile
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
        (root / 'annotations' / f'instances_{split}.json').write_text(
            json.dumps(dict(images=[dict(id=1, file_name='a.jpg')], annotations=[], categories=[]))
        )
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
    assert not (tmp_path / 'ade').exists()
    with zipfile.ZipFile(bad, 'w') as archive:
        for folder in ('images', 'annotations'):
            for split in ('training', 'validation'):
                archive.writestr(f'ADEChallengeData2016/{folder}/{split}/a.jpg', b'')
    args = ('ade20k', '--archives', tmp_path, '--allow-subset', '--root')
    (tmp_path / 'file').touch()
    status, out, err = tool(*args, tmp_path / 'file' / 'ade')  # cannot be made
    assert status == 2 and err.count('\n') == 1 and str(tmp_path / 'file') in err
    assert tool(*args, tmp_path / 'ade')[0] == 0
    assert tool('cityscapes')[0] == 2
