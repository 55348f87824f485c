"""Names of classes and functions in files, of whatever content."""

import collections
import datetime
import pickle

import pytest
import torch
from hostile import Hostile

from dynsp_mm.checkpoints.named import MethodCall, named_kinds


@pytest.mark.parametrize('new', [True, False])
def test_kinds(tmp_path, new):
    saved = dict(a=collections.deque([1]), b=collections.OrderedDict(x=1), c=datetime.date(1, 1, 1))
    torch.save(saved, tmp_path / 'a.pth', _use_new_zipfile_serialization=new)
    kinds = named_kinds(tmp_path / 'a.pth')
    assert kinds['collections.deque'] is list and kinds['collections.OrderedDict'] is dict
    assert kinds['datetime.date'] is object


@pytest.mark.parametrize('content', [b'', b'text', b'PK\x03\x04', pickle.dumps(len)[:-3]])
def test_no_checkpoint(tmp_path, content):
    (tmp_path / 'a.pth').write_bytes(content)
    assert set(named_kinds(tmp_path / 'a.pth')) <= {'builtins.len', '__builtin__.len'}


def test_calls_of_methods(tmp_path):
    torch.save(dict(x=Hostile(str(tmp_path / 'ran'))), tmp_path / 'a.pth')
    with pytest.raises(MethodCall, match='pathlib.Path.touch'):
        named_kinds(tmp_path / 'a.pth')
    assert not (tmp_path / 'ran').exists()
