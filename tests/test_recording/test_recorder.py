import copy
import threading

import pytest
import torch
from torch import nn

from dynsp_mm.recording import Recorder


def network():
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2), nn.ReLU()))


def hooks_of(model):
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


class Notes:
    """Listens, and returns something, which must not become the module's output."""

    def __init__(self):
        self.heard = []

    def __call__(self, name, module, args, output):
        self.heard.append((name, type(module).__name__, tuple(args[0].shape), tuple(output.shape)))
        return 'not an output'

    @property
    def names(self):
        return [name for name, *_ in self.heard]


def test_kinds_and_modules_in_the_order_they_run():
    model, notes, x = network(), Notes(), torch.randn(3, 4)
    expected = model(x)
    with Recorder(model, {nn.Linear: notes, model[1][1]: notes, model: notes}) as recorder:
        assert isinstance(recorder, Recorder)
        assert torch.equal(model(x), expected)
    model(x)  # no longer heard
    assert notes.heard == [
        ('0', 'Linear', (3, 4), (3, 4)),
        ('1.0', 'Linear', (3, 4), (3, 2)),
        ('1.1', 'ReLU', (3, 2), (3, 2)),
        ('', 'Sequential', (3, 4), (3, 2)),
    ]
    assert not hooks_of(model)


def test_it_may_be_opened_again_and_hears_what_is_there_then():
    model, notes = network(), Notes()
    recorder = Recorder(model, {nn.Linear: notes})
    with recorder:
        model(torch.randn(1, 4))
    model.append(nn.Linear(2, 2))
    with recorder:
        model(torch.randn(1, 4))
    assert notes.names == ['0', '1.0', '0', '1.0', '2']
    assert not hooks_of(model)


def test_twice_at_once_is_an_error_and_changes_nothing():
    model, notes = network(), Notes()
    with Recorder(model, {nn.ReLU: notes}) as recorder:
        with pytest.raises(RuntimeError, match='open already'):
            recorder.open()
        model(torch.randn(1, 4))
    assert notes.names == ['1.1'] and not hooks_of(model)


def test_an_error_inside_leaves_nothing():
    model = network()
    with pytest.raises(RuntimeError):
        with Recorder(model, {nn.Linear: Notes(), model: Notes()}):
            model(torch.randn(1, 5))
    assert not hooks_of(model)


def test_a_listener_that_raises_leaves_nothing():
    def fail(*args):
        raise KeyError('listener')

    model = network()
    with pytest.raises(KeyError, match='listener'):
        with Recorder(model, {nn.Linear: fail}):
            model(torch.randn(1, 4))
    assert not hooks_of(model)


def test_a_module_of_another_model_is_an_error():
    model = network()
    recorder = Recorder(model, {nn.Linear: Notes(), nn.Conv2d(1, 1, 1): Notes()})
    with pytest.raises(ValueError, match='Conv2d to listen to: is no module of this Sequential'):
        recorder.open()
    assert not hooks_of(model)


def test_a_listener_may_close_it():
    model, names = network(), []

    def once(name, *_):
        names.append(name)
        recorder.close()

    recorder = Recorder(model, {nn.Linear: once})
    with recorder:
        model(torch.randn(1, 4))
    assert names == ['0'] and not hooks_of(model)


def test_a_copy_of_model_and_recorder_listens_to_the_copy():
    """As when a model with a training hook is copied for averaged weights."""
    model = network()
    notes = Notes()
    held = nn.Module()
    held.model, held.recorder = model, Recorder(model, {model: notes})
    twin = copy.deepcopy(held)
    with twin.recorder:
        model(torch.randn(1, 4))
        assert not notes.heard
        twin.model(torch.randn(1, 4))
    (listener,) = twin.recorder._listeners.values()
    assert listener.names == [''] and not notes.heard


def test_other_threads_are_not_heard():
    model, notes = network(), Notes()
    with Recorder(model, {nn.ReLU: notes}):
        thread = threading.Thread(target=model, args=(torch.randn(7, 4),))
        thread.start()
        thread.join()
        model(torch.randn(2, 4))
    assert [shape for _, _, shape, _ in notes.heard] == [(2, 2)]


def test_replicas_are_heard_in_their_threads():
    """As ``DataParallel`` makes and runs them."""
    model, notes = network(), Notes()
    with Recorder(model, {nn.ReLU: notes}):
        replica = model[1][1]._replicate_for_data_parallel()
        thread = threading.Thread(target=replica, args=(torch.randn(7, 4),))
        thread.start()
        thread.join()
    assert len(notes.heard) == 1


def test_each_thread_has_its_own_recorder():
    model, heard, together = network(), {}, threading.Barrier(3)

    def serve(size):
        notes = Notes()
        with Recorder(model, {nn.ReLU: notes}):
            together.wait()
            model(torch.randn(size, 4))
            together.wait()
        heard[size] = [shape for _, _, shape, _ in notes.heard]

    threads = [threading.Thread(target=serve, args=(size,)) for size in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {size: [(size, 2)] for size in (1, 2, 3)}
