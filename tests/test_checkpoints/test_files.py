"""Files of every kind that is met: read without running code, written whole or not at all."""

import argparse
import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import http.server
import os
import pathlib
import pickle
import shutil
import sys
import threading
import types
from functools import partial

import numpy as np
import pytest
import torch
from hostile import Hostile
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.structures import InstanceData, PixelData
from properties import needs_safe_globals
from safetensors.torch import load_file, save_file

from dynsp_mm import DynamicSwin
from dynsp_mm.checkpoints import read_checkpoint, read_checkpoint_anywhere, unwrap, write_checkpoint
from dynsp_mm.checkpoints.files import Ignored
from dynsp_mm.errors import UserError

WEIGHTS = dict(a=torch.arange(6.0).view(2, 3), b=torch.ones(2, dtype=torch.long))


def same(state_dict):
    assert sorted(state_dict) == sorted(WEIGHTS)
    assert all(torch.equal(state_dict[k], v) for k, v in WEIGHTS.items())


@pytest.fixture
def config_node(monkeypatch):
    """A config as the STViT-R and Swin releases pickle it; the package need not be there."""
    module = types.ModuleType('yacs.config')

    class CfgNode(dict):
        pass

    CfgNode.__module__, CfgNode.__qualname__ = 'yacs.config', 'CfgNode'
    module.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
    monkeypatch.setitem(sys.modules, 'yacs.config', module)
    node = CfgNode(MODEL=CfgNode(NAME='swin'), TAGS=['a'], RATE=1.0)
    node.__dict__['__immutable__'] = True
    return node


@needs_safe_globals
def test_what_releases_hold_beside_weights(tmp_path, config_node, monkeypatch):
    namespace = argparse.Namespace(model='dynamic', out=pathlib.Path('x'), betas=[0.9], n=None)
    hub = MessageHub.get_instance('test_files')
    hub.update_scalar('train/loss', 1.5)
    hub.update_scalar('train/time', np.float64(2))
    hub.update_info('iter', dict(count=np.int64(3), shape=np.arange(3)))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    path = tmp_path / 'a.pth'
    torch.save(
        dict(
            state_dict=collections.OrderedDict(WEIGHTS),
            args=namespace,
            config=config_node,
            message_hub=hub.state_dict(),
            optimizer=optimizer.state_dict(),
            epoch=3,
            meta=dict(cfg='text', classes=('a', 'b'), seed=None, time=1.5),
        ),
        path,
    )
    monkeypatch.delitem(sys.modules, 'yacs.config')
    checkpoint = read_checkpoint(path)
    same(unwrap(checkpoint))
    assert checkpoint['meta']['classes'] == ('a', 'b')
    assert isinstance(checkpoint['args'], Ignored)
    assert type(checkpoint['config']) is collections.OrderedDict


class Level(enum.Enum):
    HIGH = 1


class Outer:
    class Inner:
        pass

    class Level(enum.Enum):
        HIGH = 1


class Names(list):
    pass


class Named(dict):
    pass


Point = collections.namedtuple('Point', 'x y')


@dataclasses.dataclass
class State:
    count: int = 1
    inner: object = None


def smooth(self):
    return 1


def unusual_objects():
    buffer = HistoryBuffer([1.0], [1])
    return dict(
        config_dict=ConfigDict(groups=dict(bright='day'), more=[dict(a=1)]),
        config=Config(dict(a=dict(b=1))),
        history=buffer,
        function=smooth,
        kinds=[State(inner=State()), Level.HIGH, Outer.Inner(), Outer.Level.HIGH, Point(1, 2)],
        dicts=[collections.defaultdict(list, a=[1]), Named(a=1), collections.Counter('aab')],
        lists=[Names([1, 2]), Names(), collections.deque([1, 2]), frozenset([1])],
        keys={pathlib.PurePosixPath('a'): 1, Level.HIGH: 2},
        numpy=[np.float32(1), np.array(['a']), np.dtype('f4'), np.random.RandomState(0)],
        python=[datetime.datetime(2020, 1, 1), decimal.Decimal(1), slice(2), range(3), OSError()],
        structures=[InstanceData(boxes=torch.ones(2, 4)), PixelData(data=torch.ones(1, 2, 2))],
        module=partial(torch.nn.Parameter, torch.ones(1)),
    )


@needs_safe_globals
@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('kind', unusual_objects())
def test_objects_outside_the_weights_are_left_out(tmp_path, kind, legacy, monkeypatch):
    monkeypatch.setitem(HistoryBuffer._statistics_methods, 'smooth', smooth)
    torch.save(
        dict(meta=dict(x=unusual_objects()[kind]), state_dict=WEIGHTS, hub=[1.5]),
        tmp_path / 'a.pth',
        _use_new_zipfile_serialization=not legacy,
    )
    checkpoint = read_checkpoint(tmp_path / 'a.pth')
    same(unwrap(checkpoint))
    assert checkpoint['hub'] == [1.5]
    if kind == 'config_dict':
        assert checkpoint['meta']['x'] == dict(groups=dict(bright='day'), more=[dict(a=1)])
    if kind == 'dicts':
        assert checkpoint['meta']['x'] == [dict(a=[1]), dict(a=1), dict(a=2, b=1)]
    if kind == 'lists':
        assert checkpoint['meta']['x'][0] == [1, 2] and len(checkpoint['meta']['x']) == 4


@needs_safe_globals
def test_modules_are_not_imported(tmp_path, monkeypatch):
    """A class of a program that is not there, or must not be imported for a file to be read."""
    module = types.ModuleType('program_of_a_user')
    module.Thing = type('Thing', (), {'__module__': module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save(dict(state_dict=WEIGHTS, x=[module.Thing(), module.Thing]), tmp_path / 'a.pth')
    monkeypatch.setitem(sys.modules, module.__name__, None)
    same(unwrap(read_checkpoint(tmp_path / 'a.pth')))


class Runs:
    """Calls a function when unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@needs_safe_globals
@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('function', [eval, exec, getattr, os.system, shutil.copy, Runs])
def test_functions_are_not_called(tmp_path, function, legacy):
    """Whether such a file is read or refused."""
    ran = tmp_path / 'ran'
    text = f'open({str(ran)!r}, "w")' if function in (eval, exec) else f'touch {ran}'
    args = (__file__, str(ran)) if function is shutil.copy else (text,)
    if function is getattr:
        args = (Runs(eval, f'open({str(ran)!r}, "w")'), 'name')
    torch.save(
        dict(state_dict=WEIGHTS, meta=[Runs(function, *args), {Runs(function, *args): 1}]),
        tmp_path / 'a.pth',
        _use_new_zipfile_serialization=not legacy,
    )
    with contextlib.suppress(UserError):
        same(unwrap(read_checkpoint(tmp_path / 'a.pth')))
    assert not ran.exists()


@needs_safe_globals
@pytest.mark.parametrize(
    'saved',
    [
        State(),
        dict(state_dict=State()),
        dict(state_dict=dict(WEIGHTS, c=State())),
        dict(model=dict(WEIGHTS, c=State()), meta=1),
    ],
)
def test_objects_in_place_of_weights_are_named(tmp_path, saved):
    torch.save(saved, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'it holds a .*\.State; only tensors'):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('legacy', [False, True])
def test_formats(tmp_path, legacy):
    torch.save(WEIGHTS, tmp_path / 'a.pth', _use_new_zipfile_serialization=not legacy)
    same(read_checkpoint(tmp_path / 'a.pth'))
    save_file(WEIGHTS, tmp_path / 'a.safetensors')
    same(read_checkpoint(str(tmp_path / 'a.safetensors')))


@pytest.mark.parametrize('form', ['pickle', 'zip', 'legacy', 'in weights'])
def test_a_hostile_file_is_refused(form, tmp_path):
    ran, path = tmp_path / 'ran', tmp_path / 'evil.pth'
    evil = Hostile(str(ran))
    if form == 'pickle':
        path.write_bytes(pickle.dumps(evil))
    elif form == 'in weights':
        torch.save(dict(state_dict=dict(WEIGHTS), meta=dict(hook=evil)), path)
    else:
        torch.save(
            dict(state_dict=WEIGHTS, x=evil), path, _use_new_zipfile_serialization=form == 'zip'
        )
    for read in (read_checkpoint, read_checkpoint_anywhere):
        with pytest.raises(ValueError, match='evil.pth was not read: it holds'):
            read(str(path))
    model = DynamicSwin(
        embed_dims=16,
        depths=(1, 1, 4, 1),
        num_heads=(1, 1, 2, 4),
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    with pytest.raises(ValueError, match='cannot be loaded'):
        model.init_weights()
    assert not ran.exists()
    torch.load(path, weights_only=False) if form != 'pickle' else pickle.loads(path.read_bytes())
    assert ran.exists()  # it was hostile


@needs_safe_globals
def test_the_refused_kind_is_named(tmp_path):
    torch.save(dict(WEIGHTS, x=collections.deque()), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='it holds a collections.deque; only tensors'):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_damaged_files(name, tmp_path):
    path = tmp_path / name
    with pytest.raises(ValueError, match=f'{name} does not exist'):
        read_checkpoint(path)
    write_checkpoint(WEIGHTS, 'test', path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], b'', b'no checkpoint at all'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f'{name} (is damaged|was not read)'):
            read_checkpoint(str(path))


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    for name, load in (
        ('a.pth', lambda p: torch.load(p, weights_only=True)['state_dict']),
        ('a.safetensors', load_file),
    ):
        path = tmp_path / 'new' / name
        write_checkpoint(WEIGHTS, 'test', path)
        same(load(path))
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask()

        def fail(*args, **kwargs):
            raise OSError('disk full')

        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        for where, how, kind in (
            ('writing', fail, OSError),
            ('replacing', fail, OSError),
            ('writing', interrupt, KeyboardInterrupt),
        ):
            with monkeypatch.context() as patch:
                if where == 'writing':
                    patch.setattr('torch.save', how)
                    patch.setattr('safetensors.torch.save_file', how)
                else:
                    patch.setattr('os.replace', how)
                with pytest.raises(kind):
                    write_checkpoint(dict(a=torch.zeros(1)), 'test', path)
        same(load(path))
    assert len(list((tmp_path / 'new').iterdir())) == 2  # no temporary files


def umask():
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_downloads(tmp_path, monkeypatch):
    """From a server, once; kept where torch keeps downloads."""
    served = tmp_path / 'served'
    served.mkdir()
    torch.save(WEIGHTS, served / 'weights.pth')
    torch.save(dict(x=Hostile(str(tmp_path / 'ran'))), served / 'evil.pth')
    monkeypatch.setattr('torch.hub._hub_dir', str(tmp_path / 'hub'))

    class Handler(http.server.SimpleHTTPRequestHandler):
        requests = []

        def log_message(self, *args):
            self.requests.append(self.path)

    server = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), partial(Handler, directory=str(served))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}'
    try:
        for _ in range(2):
            same(read_checkpoint_anywhere(f'{url}/weights.pth'))
        assert len(Handler.requests) == 1
        with pytest.raises(ValueError, match='missing.pth cannot be downloaded .HTTP Error 404'):
            read_checkpoint_anywhere(f'{url}/missing.pth')
        with pytest.raises(ValueError, match='was not read: it holds'):
            read_checkpoint_anywhere(f'{url}/evil.pth')
    finally:
        server.shutdown()
    assert not (tmp_path / 'ran').exists()
    assert sorted(p.name for p in (tmp_path / 'hub/checkpoints').iterdir()) == [
        'evil.pth',
        'weights.pth',
    ]
    with pytest.raises(ValueError, match='nowhere://x cannot be had'):
        read_checkpoint_anywhere('nowhere://x')
