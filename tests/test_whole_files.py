"""Files and folders appear whole or not at all."""

import os

import pytest

from dynsp_mm.files import replacing, replacing_folder, write_whole


def test_files_are_whole(tmp_path):
    path = tmp_path / 'a.csv'
    for text in ('one', 'two'):
        write_whole(path, text)
        assert path.read_text() == text
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, 'cut \ud800')
    assert path.read_text() == 'two'
    with pytest.raises(OSError):
        write_whole(tmp_path, 'text')
    write_whole(path, b'three')
    assert path.read_bytes() == b'three'
    assert list(tmp_path.iterdir()) == [path]
    assert not [other for other in tmp_path.parent.iterdir() if other.name.endswith('.tmp')]


def test_others_may_read_files(tmp_path):
    before = os.umask(0o022)
    try:
        write_whole(tmp_path / 'a', 'text')
    finally:
        os.umask(before)
    assert (tmp_path / 'a').stat().st_mode & 0o777 == 0o644


def test_a_temporary_file_of_a_given_name(tmp_path):
    """What a killed process left is written over, and nothing of it stays."""
    (tmp_path / '.partial').write_text('of an earlier, longer run')
    with replacing(tmp_path / 'a', tmp_path / '.partial') as temporary:
        temporary.write_text('new')
    assert (tmp_path / 'a').read_text() == 'new'
    assert [path.name for path in tmp_path.iterdir()] == ['a']


@pytest.mark.parametrize('exists', [False, True])
def test_folders_are_whole(tmp_path, exists):
    folder = tmp_path / 'x' / 'set'
    if exists:
        folder.mkdir(parents=True)
        (folder / 'old').touch()
    with pytest.raises(ZeroDivisionError):
        with replacing_folder(folder) as new:
            (new / 'half').touch()
            raise ZeroDivisionError
    assert folder.exists() == exists and (folder / 'old').exists() == exists
    with replacing_folder(folder) as new:
        (new / 'whole').touch()
    assert [path.name for path in folder.iterdir()] == ['whole']
    assert [path.name for path in folder.parent.iterdir()] == ['set']


def test_a_link_to_a_folder_stays(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to('real')
    with replacing_folder(tmp_path / 'link') as new:
        (new / 'file').touch()
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'real/file').exists()
