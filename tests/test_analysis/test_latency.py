"""Order and statistics, on a clock that only the candidates move: no time is measured."""

import pytest
import torch

from dynsp_mm.analysis import time_in_turns
from dynsp_mm.analysis.latency import summarise, synchronizer, turn_order


class Machine:
    """A clock, and candidates that note their calls and take given numbers of seconds."""

    def __init__(self, *durations):
        self.now = 0.0
        self.calls = []
        self.candidates = [
            self.candidate(name, list(times)) for name, times in zip('ABC', durations)
        ]

    def candidate(self, name, times):
        def call():
            self.calls.append(name)
            self.now += times.pop(0) if len(times) > 1 else times[0]

        return call

    def clock(self):
        return self.now

    def time(self, **kwargs):
        return time_in_turns(self.candidates, clock=self.clock, **kwargs)


def test_ratios_are_those_within_rounds():
    """The machine becomes ten times slower; the candidate stays twice as fast as the baseline."""
    first, second = Machine([4, 40, 400], [2, 20, 200]).time(rounds=3, warmup=0)
    assert first == (40, 1, 1, 1, 3)
    assert second == (20, 0.5, 0.5, 0.5, 3)


def test_percentiles():
    # In eleven rounds the ratios are 0, 1, ... 10, in another order.
    rows = [[2.0, 2.0 * ratio] for ratio in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7, 10)]
    baseline, candidate = summarise(rows)
    assert baseline == (2, 1, 1, 1, 11)
    assert candidate == pytest.approx((10, 5, 2, 8, 11))


def test_warmup_is_not_timed():
    slow_start = Machine([100, 100, 1], [100, 100, 3])
    timings = slow_start.time(rounds=2, warmup=2)
    assert [timing.seconds for timing in timings] == [1, 3]
    assert len(slow_start.calls) == 2 * (2 + 2)


def test_candidates_take_turns():
    machine = Machine([1], [1], [1])
    machine.time(rounds=6, warmup=0)
    rounds = [''.join(machine.calls[i : i + 3]) for i in range(0, 18, 3)]
    assert rounds == ['ABC', 'BCA', 'CAB', 'CBA', 'ACB', 'BAC']
    assert [turn_order(i, 2) for i in range(4)] == [[0, 1], [1, 0], [1, 0], [0, 1]]
    assert turn_order(5, 1) == [0]


def test_it_goes_on_for_the_least_time():
    machine = Machine([1], [3])
    assert machine.time(rounds=2, warmup=1, min_seconds=18)[0].rounds == 5  # 4 s each
    assert machine.time(rounds=7, warmup=1, min_seconds=18)[0].rounds == 7


def test_work_on_a_device_counts():
    """A call returns at once; the work is done when the device was waited for."""
    machine = Machine([0])
    queued = []

    def synchronize():
        machine.now += sum(queued)
        queued.clear()

    candidates = [lambda: queued.append(2), lambda: queued.append(5)]
    timings = time_in_turns(
        candidates, rounds=4, warmup=1, synchronize=synchronize, clock=machine.clock
    )
    assert [timing.seconds for timing in timings] == [2, 5]


def test_who_waits_for_a_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, 'synchronize', waited.append)
    device = torch.device('cuda:1')
    synchronizer(device)()
    assert waited == [device]
    assert synchronizer(torch.device('cpu')) is None


@pytest.mark.parametrize(
    'kwargs,text',
    [
        (dict(rounds=0), 'rounds=0: must be 1 or more'),
        (dict(warmup=-1), 'warmup=-1: must be 0 or more'),
        (dict(min_seconds=-1), 'min_seconds=-1: must be a number >= 0'),
        (dict(min_seconds=float('nan')), 'min_seconds=nan: must be'),
        (dict(min_seconds=float('inf')), 'min_seconds=inf: must be'),
    ],
)
def test_mistakes(kwargs, text):
    with pytest.raises(ValueError, match=text):
        time_in_turns([lambda: None], **kwargs)
    with pytest.raises(ValueError, match='candidates: at least one'):
        time_in_turns([])
