"""Wall time of several callables that take turns in one process."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ..errors import UserError


class Timing(NamedTuple):
    """Times of one candidate.

    Attributes:
        seconds: Median seconds of a call.
        ratio: Median over rounds of this candidate's time divided by the first one's in the same
            round; below 1 it is faster.
        ratio_p20: 20th percentile of those ratios.
        ratio_p80: 80th percentile of those ratios.
        rounds: Number of timed rounds.
    """

    seconds: float
    ratio: float
    ratio_p20: float
    ratio_p80: float
    rounds: int


def time_in_turns(
    candidates: Sequence[Callable[[], Any]],
    rounds: int = 20,
    warmup: int = 3,
    min_seconds: float = 0.0,
    synchronize: Callable[[], Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Times callables in rounds, in each of which every one runs once.

    A machine's speed drifts with its clock rate and with other load. What runs within one round
    meets nearly the same conditions, so ratios of a round say more than those of medians taken
    one candidate after the other.

    Args:
        candidates: Callables without arguments; the first is the baseline.
        rounds: Smallest number of timed rounds.
        warmup: Number of rounds before them that are not timed.
        min_seconds: Time that the timed calls together take at least; rounds go on until then.
        synchronize: Function that waits for a device to finish, called before each reading of the
            clock. None for callables that return when they are done.
        clock: Function that returns seconds from any start.

    Returns:
        Times of each candidate, in their order.

    Raises:
        UserError: For no candidate, fewer than 1 round, or a negative warm-up or time.
    """
    if not candidates:
        raise UserError('candidates: at least one is needed')
    if rounds < 1:
        raise UserError(f'rounds={rounds!r}: must be 1 or more')
    if warmup < 0:
        raise UserError(f'warmup={warmup!r}: must be 0 or more')
    if not 0 <= min_seconds < float('inf'):
        raise UserError(f'min_seconds={min_seconds!r}: must be a number >= 0')
    synchronize = synchronize or (lambda: None)

    def run_round(index: int) -> list[float]:
        times = [0.0] * len(candidates)
        for which in turn_order(index, len(candidates)):
            synchronize()
            start = clock()
            candidates[which]()
            synchronize()
            times[which] = clock() - start
        return times

    for index in range(warmup):
        run_round(index)
    timed: list[list[float]] = []
    total = 0.0
    while len(timed) < rounds or total < min_seconds:
        timed.append(run_round(len(timed)))
        total += sum(timed[-1])
    return summarise(timed)


def turn_order(index: int, count: int) -> list[int]:
    """Order of the candidates in a round.

    It is rotated by one from round to round and reversed every ``count`` rounds, so that each
    candidate comes in every place equally often, and before and after each neighbour.
    """
    order = [(index + step) % count for step in range(count)]
    return order[::-1] if index // count % 2 else order


def summarise(timed: Sequence[Sequence[float]]) -> list[Timing]:
    """Statistics of (rounds, candidates) seconds."""
    times = torch.tensor(timed, dtype=torch.float64)
    levels = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    low, middle, high = (times / times[:, :1]).quantile(levels, dim=0).tolist()
    seconds = times.quantile(0.5, dim=0).tolist()
    return [Timing(*values, len(timed)) for values in zip(seconds, middle, low, high)]


def synchronizer(device: torch.device) -> Callable[[], Any] | None:
    """Function that waits for a device, for :func:`time_in_turns`; None for the CPU."""
    if device.type == 'cpu':
        return None
    accelerator = getattr(torch, device.type)
    return lambda: accelerator.synchronize(device)
