"""What comes out of an archive, and what must not."""

import io
import stat
import tarfile
import zipfile

import pytest
from tiny_sets import add, image, write_tar, write_zip

from dynsp_mm.tooling.datasets.archives import (
    ArchiveError,
    copy_members,
    leads_outside,
    open_archive,
)

FILES = {f'a/{i}.jpg': image(str(i)) for i in range(5)}


def read(path):
    with open_archive(path) as members:
        return {member.name: member.open().read() for member in members}


@pytest.mark.parametrize('write', [write_zip, write_tar])
def test_reads_ordinary_files(write, tmp_path):
    path = write(tmp_path / 'archive', {**FILES, './b//c.txt': b'c'})
    assert read(path) == {**FILES, 'b/c.txt': b'c'}


@pytest.mark.parametrize('name', ['../x.jpg', 'a/../../x.jpg', '/tmp/x.jpg', 'a/..'])
@pytest.mark.parametrize('write', [write_zip, write_tar])
def test_refuses_what_leads_outside(write, name, tmp_path):
    path = write(tmp_path / 'archive', {**FILES, name: b'x'})
    with pytest.raises(ArchiveError, match=f'archive {path}: entry .* leads out'):
        read(path)


def test_leads_outside():
    assert not leads_outside('a/..b/c..') and leads_outside('a\0b')


@pytest.mark.parametrize(
    'kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_refuses_links_and_devices_of_tar(kind, tmp_path):
    path = tmp_path / 'archive.tar'
    with tarfile.open(path, 'w') as archive:
        add(archive, 'a/1.jpg', b'x')
        add(archive, 'a/2.jpg', type=kind, linkname='a/1.jpg')
    with pytest.raises(ArchiveError, match="entry 'a/2.jpg' is a link or a device"):
        read(path)


@pytest.mark.parametrize('mode', [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_refuses_links_and_devices_of_zip(mode, tmp_path):
    info = zipfile.ZipInfo('a/2.jpg')
    info.external_attr = (mode | 0o777) << 16
    with zipfile.ZipFile(tmp_path / 'archive.zip', 'w') as archive:
        archive.writestr(info, '/etc/passwd')
    with pytest.raises(ArchiveError, match="entry 'a/2.jpg' is a link or a device"):
        read(tmp_path / 'archive.zip')


@pytest.mark.parametrize('write', [write_zip, write_tar])
@pytest.mark.parametrize('share', [0, 0.01, 0.3, 0.6, 0.95])
def test_truncated_is_one_error(write, share, tmp_path):
    whole = write(io.BytesIO(), FILES) if write is write_zip else write(tmp_path / 'w', FILES)
    content = whole.getvalue() if write is write_zip else whole.read_bytes()
    if write is write_tar:  # tar fills up with zeros, which nobody misses
        content = content.rstrip(b'\0')
    path = tmp_path / 'archive'
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArchiveError, match=f'archive {path} is damaged or not completely'):
        read(path)


def test_flipped_byte_of_zip(tmp_path):
    path = write_zip(tmp_path / 'a.zip', FILES)
    content = path.read_bytes()
    path.write_bytes(content.replace(FILES['a/3.jpg'], FILES['a/3.jpg'][:-1] + b'!'))
    with pytest.raises(ArchiveError, match='Bad CRC-32'):
        read(path)


def test_gzip_cut_off(tmp_path):
    path = write_tar(tmp_path / 'a.tar.gz', FILES, 'w:gz')
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match='damaged'):
        read(path)


def test_copies_contents_only_and_keeps_finished_files(tmp_path):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w') as archive:
        add(archive, '1.jpg', b'one', mode=0o6777, uid=1234)
        add(archive, '2.jpg', b'two', mode=0)
    target = tmp_path / 'target'
    sizes = []
    with open_archive(path) as members:
        places = [(member, f'x/{member.name}') for member in members]
        copy_members(places, target, sizes.append)
        assert sizes == [3, 3]
        assert not (target / 'x/1.jpg').stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)
        (target / 'x/1.jpg').write_bytes(b'old')  # as long as it ought to be: is kept
        (target / 'x/2.jpg').write_bytes(b'cut off or so')
        copy_members(places, target, sizes.append)
    assert (target / 'x/1.jpg').read_bytes() == b'old'
    assert (target / 'x/2.jpg').read_bytes() == b'two'
    assert sorted(p.name for p in target.rglob('*')) == ['1.jpg', '2.jpg', 'x']
