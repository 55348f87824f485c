"""Looking at decisions without touching the model."""
from contextlib import contextmanager
from typing import Dict, Iterator, List, NamedTuple

import torch.nn as nn

from .layers import Decision, TokenPredictor


class Record(NamedTuple):
    """One decision and the predictor that took it (its name in the model)."""
    predictor: str
    decision: Decision


class DecisionLog(List[Record]):
    """Decisions in the order they were taken."""

    @property
    def decisions(self) -> List[Decision]:
        """The decisions alone."""
        return [record.decision for record in self]

    def by_predictor(self) -> Dict[str, List[Decision]]:
        """Decisions of each predictor, in the order the predictors first decided."""
        grouped: Dict[str, List[Decision]] = {}
        for name, decision in self:
            grouped.setdefault(name, []).append(decision)
        return grouped


@contextmanager
def record_decisions(model: nn.Module) -> Iterator[DecisionLog]:
    """Records every decision that ``model`` takes inside the ``with`` block.

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

    def listen(name: str):
        return lambda module, args, decision: log.append(Record(name, decision))

    handles = [module.register_forward_hook(listen(name))
               for name, module in model.named_modules() if isinstance(module, TokenPredictor)]
    try:
        yield log
    finally:
        for handle in handles:
            handle.remove()
