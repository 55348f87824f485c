"""Decisions of token predictors, as they are taken."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch.nn as nn

from ..sparsity import Decision, TokenPredictor
from .recorder import Recorder


class Record(NamedTuple):
    """One decision and the predictor that took it (its name in the model)."""

    predictor: str
    decision: Decision


class DecisionLog(list[Record]):
    """Decisions in the order they were taken."""

    def note(self, name: str, predictor: TokenPredictor, args: tuple, decision: Decision) -> None:
        """Appends a decision: the log as a listener of a :class:`Recorder`."""
        self.append(Record(name, decision))

    @property
    def decisions(self) -> list[Decision]:
        """The decisions alone."""
        return [record.decision for record in self]

    def by_predictor(self) -> dict[str, list[Decision]]:
        """Groups decisions by predictor, in the order in which predictors first decided."""
        grouped: dict[str, list[Decision]] = {}
        for name, decision in self:
            grouped.setdefault(name, []).append(decision)
        return grouped


@contextmanager
def record_decisions(model: nn.Module) -> Iterator[DecisionLog]:
    """Records every decision that ``model`` takes inside the ``with`` block, in its thread.

    Example::

        with record_decisions(detector) as log:
            detector.test_step(batch)
        for name, decision in log:
            decision.keep        # (B, H, W) bool, True where slow
            decision.scores      # (B, H * W) log-probability of "slow"
            decision.keep_ratio  # (B,) realised share of slow positions

    Args:
        model: Any module that contains sparse backbones; a dense model gives an empty log.

    Yields:
        The log, filled as forwards run. It keeps tensors alive (with their graph in training):
        ``clear()`` it between forwards when it is held for long.
    """
    log = DecisionLog()
    with Recorder(model, {TokenPredictor: log.note}):
        yield log
