"""What a machine can do at best, to set measurements against."""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from operator import matmul
from typing import Any

import torch

from .latency import synchronizer

SIDES = (256, 8192)  # of matrices: the first that is tried and the largest
LONG = 0.02  # seconds that a timing should take, many times what a clock or a launch costs
REPEATS = 5
MAX_SECONDS = 0.4  # after which no further repeat starts
COPIED = 2**28  # bytes, several times the caches


def matrix_rate(
    device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Multiply-adds per second of the product of two large square matrices.

    Their side doubles until a product takes 20 ms, or is 8192; the best rate of all sides and
    repeats counts. Whether float32 products of an accelerator round their inputs (TF32) is as torch
    is set in this process.

    Args:
        device: Device to measure.
        dtype: Dtype of the matrices.
        clock: Function that returns seconds from any start.
    """
    side, largest = SIDES
    best = 0.0
    while True:
        left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
        seconds = best_time(partial(matmul, left, right), device, clock)
        best = max(best, side**3 / seconds)
        if seconds >= LONG or side >= largest:
            return best
        side *= 2


def copy_bandwidth(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Bytes read plus bytes written per second of a copy within the memory of a device."""
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)  # pages exist once they were written
    return 2 * COPIED / best_time(lambda: target.copy_(source), device, clock)


def best_time(call: Callable[[], Any], device: torch.device, clock: Callable[[], float]) -> float:
    """Seconds of a call in the fastest of several repeats, after a warm-up.

    Short calls are timed many at a time, so that their launches overlap.
    """
    synchronize = synchronizer(device) or (lambda: None)

    def timed(count: int) -> float:
        synchronize()
        start = clock()
        for _ in range(count):
            call()
        synchronize()
        return (clock() - start) / count

    timed(1)
    start = clock()
    best = timed(1)
    count = math.ceil(LONG / max(best, 1e-6))
    for _ in range(REPEATS):
        if clock() - start > MAX_SECONDS:
            break
        best = min(best, timed(count))
    return best


def measure_bounds(device: torch.device, dtypes: Mapping[str, torch.dtype]) -> dict[str, Any]:
    """Both bounds of a device.

    Args:
        device: Device to measure.
        dtypes: Name -> dtype of each matrix product.

    Returns:
        ``macs_per_s``, the :func:`matrix_rate` of each name, and ``copy_bytes_per_s``.
    """
    return dict(
        macs_per_s={name: matrix_rate(device, dtype) for name, dtype in dtypes.items()},
        copy_bytes_per_s=copy_bandwidth(device),
    )


def larger_bounds(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The larger of each of two results of :func:`measure_bounds`: what the machine can do."""
    return dict(
        macs_per_s={
            name: max(rate, second['macs_per_s'][name])
            for name, rate in first['macs_per_s'].items()
        },
        copy_bytes_per_s=max(first['copy_bytes_per_s'], second['copy_bytes_per_s']),
    )
