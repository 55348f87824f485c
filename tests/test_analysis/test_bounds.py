"""Rates on a clock that only the work moves: no time is measured."""

import pytest
import torch

from dynsp_mm.analysis import bounds, copy_bandwidth, matrix_rate

CPU = torch.device('cpu')


class Clock:
    """Its time passes only where a test says so."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def products(monkeypatch):
    """The clock of a machine of ``rate`` multiply-adds a second, which notes its products."""
    clock = Clock()
    clock.seen = []

    def matmul(left, right):
        assert left.shape == right.shape
        clock.seen.append((left.shape[0], left.dtype, left.device))
        clock.now += left.shape[0] ** 3 / clock.rate

    monkeypatch.setattr(torch.Tensor, '__matmul__', matmul)
    return clock


def test_matrices_grow_until_a_product_takes_long_enough(products, monkeypatch):
    monkeypatch.setattr(bounds, 'SIDES', (16, 128))
    products.rate = 31**3 / bounds.LONG  # 32 x 32 takes a little longer than that
    assert matrix_rate(CPU, torch.bfloat16, products) == pytest.approx(products.rate)
    assert {side for side, _, _ in products.seen} == {16, 32}
    assert {seen[1:] for seen in products.seen} == {(torch.bfloat16, CPU)}
    products.seen.clear()
    products.rate *= 1000
    assert matrix_rate(CPU, torch.float32, products) == pytest.approx(products.rate)
    assert {side for side, _, _ in products.seen} == {16, 32, 64, 128}


def test_the_best_repeat_counts(monkeypatch):
    clock = Clock()
    left = [100, 8, 4, 2, 1, 3, 5]  # the first warms up

    def call():
        clock.now += left.pop(0) * bounds.LONG

    monkeypatch.setattr(bounds, 'MAX_SECONDS', 100)
    assert bounds.best_time(call, CPU, clock) == pytest.approx(bounds.LONG)
    assert not left


def test_it_ends_soon():
    clock, calls = Clock(), []

    def call():
        calls.append(clock.now)
        clock.now += 2 * bounds.MAX_SECONDS

    assert bounds.best_time(call, CPU, clock) == pytest.approx(2 * bounds.MAX_SECONDS)
    assert len(calls) == 2


def test_short_calls_are_timed_together_and_waited_for(monkeypatch):
    """Launches return at once; the device works when it is waited for."""
    clock, queued, batches = Clock(), [], []

    def synchronize():
        clock.now += sum(queued)
        batches.append(len(queued))
        queued.clear()

    monkeypatch.setattr(bounds, 'synchronizer', lambda device: synchronize)
    seconds = bounds.LONG / 10
    assert bounds.best_time(lambda: queued.append(seconds), CPU, clock) == pytest.approx(seconds)
    assert max(batches) == 10 and not queued


def test_copies_read_and_write(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(bounds, 'COPIED', 1000)
    copy = torch.Tensor.copy_

    def slow(target, source):
        clock.now += 1.0
        assert target.nbytes == source.nbytes == 1000
        return copy(target, source)

    monkeypatch.setattr(torch.Tensor, 'copy_', slow)
    assert copy_bandwidth(CPU, clock) == 2000


def test_real_rates_are_positive(monkeypatch):
    monkeypatch.setattr(bounds, 'SIDES', (16, 16))
    monkeypatch.setattr(bounds, 'COPIED', 1000)
    found = bounds.measure_bounds(CPU, dict(float32=torch.float32, bf16=torch.bfloat16))
    assert list(found['macs_per_s']) == ['float32', 'bf16']
    assert all(rate > 0 for rate in (*found['macs_per_s'].values(), found['copy_bytes_per_s']))
