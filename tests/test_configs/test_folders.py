"""Configs lie in a folder for each method; the flat names that users were promised stay."""

import itertools
import re

import pytest
from config_files import CONFIGS, ROOT, load_path, path_of
from mmengine.config import Config
from mmengine.fileio import load

FLAT = sorted(CONFIGS.glob('*.py'))
# What the README has named since there are configs.
PROMISED = """
`maskrcnn_dyswin_{t,s,b}.py` `maskrcnn_dyconvnext_{t,s,b}.py` `maskrcnn_stvit_swin_t.py`
`cascade_maskrcnn_{dyswin,dyconvnext}_{t,s,b}.py` `cascade_maskrcnn_stvit_swin_{s,b}.py`
`retinanet_dyswin_{t,s,b}.py` `dino_dyswin_l.py` `rtmdet_dyswin_b.py`
`upernet_{dyswin,dyconvnext}_{t,s,b}_ade20k.py` `upernet_stvit_swin_s_ade20k.py`
`fpn_{dyswin,dyconvnext}_{t,s,b}_ade20k.py` `mask2former_dyswin_{t,s,b}_ade20k.py`
`cls_{dyswin,dyconvnext}_{t,s,b}_in1k.py` `cls_dyconvnext_{t,s,b}_r09_in1k.py`
`cls_stvit_swin_{s,b}_in1k.py`
`maskrcnn_dyswin_{t,s}_teacher.py` `maskrcnn_dyconvnext_t_teacher.py`
`cascade_maskrcnn_dyswin_{t,s,b}_teacher.py` `cascade_maskrcnn_dyconvnext_{t,s}_teacher.py`
`upernet_{dyswin,dyconvnext}_{t,s,b}_ade20k_teacher.py` `maskrcnn_dyswin_t_demo.py`
"""
FOLDERS = sorted(path.parent for path in CONFIGS.glob('*/README.md'))


def named_in(text):
    """Names of configs in a text, with those that it puts in braces written out."""
    found = set()
    for name in re.findall(r'`(\w[\w{},]*)\.py`', text):
        pieces = [piece.split(',') for piece in re.split(r'[{}]', name)]
        found |= {''.join(choice) for choice in itertools.product(*pieces)}
    return found


def names_in(folder):
    return {path.stem for path in folder.glob('*.py')}


def test_names_in_braces():
    assert named_in('`a_{s,t}_b.py`, `c.py` and `d`') == {'a_s_b', 'a_t_b', 'c'}


def test_every_folder_is_of_a_method():
    folders = {path for path in CONFIGS.iterdir() if path.is_dir() and path.name != '_base_'}
    assert folders == set(FOLDERS)
    assert {folder.name for folder in FOLDERS} >= {'dynamic_swin', 'dynamic_convnext', 'stvit'}


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda path: path.name)
def test_a_folder_lists_its_configs(folder):
    """Its README names each, its metafile each that is to be trained in earnest."""
    names = names_in(folder)
    assert named_in((folder / 'README.md').read_text()) == names
    metafile = load(folder / 'metafile.yml')
    models = {model['Name']: model for model in metafile['Models']}
    assert set(models) == {name for name in names if not name.endswith('_demo')}
    (collection,) = metafile['Collections']
    assert (ROOT / collection['README']) == folder / 'README.md'
    for name, model in models.items():
        assert ROOT / model['Config'] == folder / f'{name}.py'
        assert model['In Collection'] == collection['Name']


def test_the_index_has_every_metafile():
    imported = [ROOT / path for path in load(ROOT / 'model-index.yml')['Import']]
    assert sorted(imported) == [folder / 'metafile.yml' for folder in FOLDERS]


def test_flat_names_that_were_promised_are_there():
    promised = named_in(PROMISED)
    assert len(promised) == 62 and promised <= {path.stem for path in FLAT}


def test_the_readme_names_flat_configs():
    models = (ROOT / 'README.md').read_text().partition('\n## Models\n')[2].partition('\n## ')[0]
    assert named_in(models) and named_in(models) <= {path.stem for path in FLAT}


@pytest.mark.parametrize('path', FLAT, ids=lambda path: path.stem)
def test_a_flat_name_is_the_config_of_its_folder(path):
    own = path_of(path.stem)
    assert path.read_text() == f"_base_ = './{own.relative_to(CONFIGS)}'\n"
    flat, foldered = load_path(path), load_path(own)
    assert flat.to_dict() == foldered.to_dict()
    assert list(flat.env_variables) == list(foldered.env_variables)


DERIVED = """
_base_ = '{base}'
pipeline = _base_.train_pipeline
train_dataloader = dict(dataset=dict(_delete_=True, type='CustomDataset', pipeline=pipeline))
custom_hooks = [*_base_.custom_hooks, dict(type='Mine', teacher={{{{_base_.load_from}}}})]
model = dict(backbone=dict(_delete_=True, type={{{{_base_.model.backbone.type}}}}))
"""


def test_names_of_the_base_are_there_through_a_flat_config(tmp_path):
    """A config of a user's own refers to them in both of mmengine's ways."""
    derived = {}
    for path in (CONFIGS / 'cls_dyswin_t_in1k.py', path_of('cls_dyswin_t_in1k')):
        own = tmp_path / 'own.py'
        own.write_text(DERIVED.format(base=path))
        derived[path] = Config.fromfile(own).to_dict()
    flat, foldered = derived.values()
    assert flat == foldered
    assert flat['model']['backbone'] == dict(type='DynamicSwin')
    assert flat['custom_hooks'][-1] == dict(type='Mine', teacher=flat['load_from'])
    assert flat['train_dataloader']['dataset']['pipeline'] == flat['train_pipeline']
