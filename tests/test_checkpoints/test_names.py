"""Names of published checkpoints, as mmengine's loader resolves them."""

from pathlib import Path

import pytest
import torch
from mmengine.runner import checkpoint as mmengine_tables

from dynsp_mm.checkpoints import files, read_checkpoint_anywhere
from dynsp_mm.checkpoints.names import SCHEMES, resolve


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'home'))
    monkeypatch.setattr('torch.hub._hub_dir', str(tmp_path / 'hub'))
    return tmp_path


def test_the_tables_are_mmengines():
    classifiers = mmengine_tables.get_mmcls_models()
    assert resolve('mmcls://swin_tiny') == classifiers['swin_tiny']
    torchvision = mmengine_tables.get_torchvision_models()
    for scheme in ('torchvision', 'modelzoo'):
        assert resolve(f'{scheme}://swin_t.default') == torchvision['swin_t.default']
    others = mmengine_tables.get_external_models()
    for scheme in ('open-mmlab', 'openmmlab'):
        assert resolve(f'{scheme}://jhu/resnet50_gn_ws') == others['jhu/resnet50_gn_ws']
        assert resolve(f'{scheme}://resnet50_caffe') == others['detectron/resnet50_caffe']
    for text in ('a.pth', 'https://x/a.pth', 's3://bucket/a.pth', '/a/b.pth'):
        assert resolve(text) == text


def test_old_names_are_said(monkeypatch):
    said = []
    monkeypatch.setattr('dynsp_mm.checkpoints.names.print_log', lambda text, *_: said.append(text))
    resolve('open-mmlab://resnet50_caffe')
    resolve('modelzoo://resnet50')
    assert said == [
        'open-mmlab://resnet50_caffe is deprecated in favor of '
        'open-mmlab://detectron/resnet50_caffe',
        'modelzoo:// is deprecated in favor of torchvision://',
    ]


@pytest.mark.parametrize(
    'name,text',
    [
        ('mmcls://swin_tinny', 'mmcls:// has no such name; near are .*swin_tiny'),
        ('mmcls://', r'mmcls:// has no such name; known are (\w+, ){10}... \(\d+ in all\)$'),
        ('torchvision://swin_t', 'near are swin_t.default, swin_t.imagenet1k_v1'),
        ('torchvision://shufflenetv2_x2.0', 'its program published no weights'),
        ('openmmlab://zzz', 'openmmlab:// has no such name; known are vgg16_caffe'),
        ('hugging://x', 'nothing reads hugging://; http://, https://, mmcls://'),
    ],
)
def test_unknown_names(name, text):
    with pytest.raises(ValueError, match=text) as error:
        read_checkpoint_anywhere(name)
    assert '\n' not in str(error.value) and 'KeyError' not in str(error.value)


def test_a_table_of_ones_own(home):
    """Mmengine adds to its table a file in its folder, whose paths are relative to that."""
    (home / 'home').mkdir()
    (home / 'home/open_mmlab.json').write_text('{"mine": "mine.pth"}')
    torch.save(dict(a=torch.ones(2)), home / 'home/mine.pth')
    assert read_checkpoint_anywhere('open-mmlab://mine')['a'].tolist() == [1, 1]


def test_a_download_that_is_there_is_read(home):
    url = resolve('mmcls://swin_tiny')
    path = home / 'hub/checkpoints' / Path(url).name
    path.parent.mkdir(parents=True)
    torch.save(dict(a=torch.ones(2)), path)
    assert read_checkpoint_anywhere('mmcls://swin_tiny')['a'].tolist() == [1, 1]


@pytest.mark.parametrize(
    'name,digest',
    [
        ('swin-66df6be6.pth', '66df6be6'),
        ('swin-66df6be6.pth.tar', '66df6be6'),
        ('swin-20210616.pth', None),
        ('swin-66df6be6.old_1.pth', None),
        ('swin.pth', None),
    ],
)
def test_the_hash_is_checked_where_a_name_ends_in_one(name, digest, home, monkeypatch):
    asked = []

    def offline(url, path, prefix):
        asked.append(prefix)
        raise OSError('no network here')

    monkeypatch.setattr(files, 'download_url_to_file', offline)
    url, place = f'https://host/a/{name}', home / 'hub/checkpoints' / name
    with pytest.raises(ValueError) as error:
        read_checkpoint_anywhere(url)
    assert str(error.value) == (
        f'{url} cannot be downloaded (no network here); put the file at {place}'
    )
    assert asked == [digest]


def test_the_home_folder(monkeypatch, home):
    monkeypatch.setenv('HOME', str(home))
    torch.save(dict(a=torch.ones(2)), home / 'a.pth')
    assert set(read_checkpoint_anywhere('~/a.pth')) == {'a'}


def test_schemes():
    assert set(SCHEMES) == {'mmcls', 'open-mmlab', 'openmmlab', 'torchvision', 'modelzoo'}
