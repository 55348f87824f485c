"""Paths of configs as bases that plain mmengine reads."""

import importlib.util
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

import dynsp_mm
from dynsp_mm.configuration import config, read_config
from dynsp_mm.errors import UserError

OWN = 'maskrcnn_dyswin_t.py'
BASES = {
    'mmdet': 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'mmseg': 'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    'mmpretrain': 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
}


@pytest.fixture
def no_pip(monkeypatch):
    """Plain mmengine, which must not install anything."""
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    monkeypatch.setattr(
        'mmengine.utils.package_utils.call_command',
        lambda command: pytest.fail(f'mmengine ran {command}'),
    )


def test_it_is_public():
    assert dynsp_mm.config is config
    path = Path(config(OWN))
    assert path.is_absolute() and path.name == OWN
    assert config(f'dynsp_mm::{OWN}') == str(path)


@pytest.mark.parametrize('form', ['{}', '[{}]', "['other.py', {}]"])
def test_own_configs_as_a_base(tmp_path, no_pip, form):
    (tmp_path / 'other.py').write_text("work_dir = 'elsewhere'\n")
    path = tmp_path / 'config.py'
    base = form.format(f"__import__('dynsp_mm').config('{OWN}')")
    path.write_text(f'_base_ = {base}\nmodel = dict(backbone=dict(keep_ratios=0.6))\n')
    cfg, expected = Config.fromfile(path), Config.fromfile(config(OWN))
    assert cfg.get('work_dir') == ('elsewhere' if 'other' in form else None)
    cfg.pop('work_dir', None)
    assert cfg.model.backbone.pop('keep_ratios') == 0.6
    assert expected.model.backbone.pop('keep_ratios') == 0.7
    # Nothing is looked up in another scope than through the path of the file.
    assert cfg._cfg_dict == expected._cfg_dict


@pytest.mark.parametrize('library', BASES)
def test_configs_of_libraries_as_a_base(library, tmp_path, no_pip):
    pytest.importorskip(library)
    name = BASES[library]
    assert Path(config(name)).is_absolute()
    path = tmp_path / 'config.py'
    for base in (f"__import__('dynsp_mm').config('{name}')", repr(config(name))):
        path.write_text(f'_base_ = [{base}]\nmodel = dict(backbone=dict(with_cp=True))\n')
        cfg = Config.fromfile(path)
        assert cfg.default_scope == library and cfg.model.backbone.with_cp is True
        assert 'Swin' in cfg.model.backbone.type


def test_a_base_in_a_process_that_knows_nothing_yet(tmp_path):
    """As in a library's own tools, which import this package only with the config."""
    path = tmp_path / 'config.py'
    path.write_text(f"_base_ = __import__('dynsp_mm').config('{OWN}')\n")
    code = (
        'import sys; from mmengine.config import Config; '
        'print(Config.fromfile(sys.argv[1]).model.type)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == 'MaskRCNN'


def test_read_config_by_name():
    assert read_config(f'dynsp_mm::{OWN}').model.backbone.keep_ratios == 0.7


@pytest.mark.parametrize(
    'name, text',
    [
        (
            'mmaction::a/b.py',
            "configs come from mmdet, mmseg, mmpretrain and dynsp_mm; got 'mmaction'",
        ),
        ('mmdet::b.py', 'a config of mmdet is named with its folder, such as mmdet::retinanet/'),
        ('mmdet::a/b.py', 'package mmdet is not installed'),
    ],
)
def test_names_that_are_wrong(name, text, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=text) as caught:
        config(name)
    assert str(caught.value).startswith(f'{name}: ')


def test_configs_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="dynsp_mm has no config 'no.py'"):
        config('no.py')
    with pytest.raises(UserError, match="^dynsp_mm::no.py: dynsp_mm has no config 'no.py'$"):
        read_config('dynsp_mm::no.py')
    path = tmp_path / 'config.py'
    path.write_text("_base_ = __import__('dynsp_mm').config('no.py')\n")
    with pytest.raises(UserError, match="config.py: dynsp_mm has no config 'no.py'$"):
        read_config(str(path))


@pytest.mark.parametrize('base', ['dynsp_mm::x.py', 'dynsp_mm::a/x.py', 'mmnothing::a/x.py'])
def test_bases_that_mmengine_does_not_know(tmp_path, base):
    path = tmp_path / 'config.py'
    path.write_text(f"_base_ = ['{base}']\n")
    recipe = re.escape("_base_ = __import__('dynsp_mm').config('NAME')")
    with pytest.raises(UserError, match=recipe):
        read_config(str(path))


@pytest.mark.parametrize(
    'name', ['/etc/passwd', '../setup.py', 'mmdet::/etc/passwd', 'mmdet::a/../b']
)
def test_paths_stay_below_the_configs(name):
    with pytest.raises(UserError, match='must be a path below the folder of configs'):
        config(name)


def test_configs_in_python_style_lie_in_the_package(tmp_path, monkeypatch):
    """Those in text come first, as in the libraries' checkouts, which have both."""
    for folder in ('configs/a', 'mmdet/configs/a'):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / 'both.py').touch()
    (tmp_path / 'mmdet/configs/a/only.py').write_text('x = 1\n')
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path / 'mmdet')])
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: spec)
    assert config('mmdet::a/only.py') == str(tmp_path / 'mmdet/configs/a/only.py')
    assert config('mmdet::a/both.py') == str(tmp_path / 'configs/a/both.py')
