"""Logits of classifiers and segmentors, and where they come from."""

from typing import Any

import torch.nn as nn
from torch import Tensor

from .maps import BackboneCall, MapLog
from .recorder import Recorder


def logit_layer(model: nn.Module) -> nn.Module | None:
    """Finds the module whose output are the logits of a classifier or segmentor; None in others.

    That is the head of an mmpretrain classifier and ``conv_seg`` of the (last) decode head of an
    mmseg segmentor. Detectors have no logits per image or position, nor have segmentors that
    classify masks.
    """
    head = _logit_head(model)
    layer = getattr(head, 'conv_seg', None) if hasattr(model, 'decode_head') else head
    return layer if isinstance(layer, nn.Module) else None


def classifies_by_softmax(model: nn.Module) -> bool:
    """Tells whether the logits of a model are trained as one distribution over classes.

    They are not in heads for several labels, which take a sigmoid of each, for several tasks, and
    in those that add margins while they train.
    """
    head = _logit_head(model)
    losses = getattr(head, 'loss_module', None) or getattr(head, 'loss_decode', None)
    if logit_layer(model) is None or losses is None or hasattr(head, 'set_margins'):
        return False
    losses = losses if isinstance(losses, nn.ModuleList) else [losses]
    return not any(getattr(loss, 'use_sigmoid', False) for loss in losses)


def _logit_head(model: nn.Module) -> nn.Module | None:
    head = getattr(model, 'decode_head', getattr(model, 'head', None))
    return head[-1] if isinstance(head, nn.ModuleList) and len(head) else head


class OutputRecorder:
    """Records what a model computes: calls of its backbone and its last logits.

    A context manager that listens while it is open. Opening it again forgets what it holds.

    Args:
        model: Detector, segmentor or classifier.
        backbone: Name of its backbone's module.
        logits: Whether to record logits too; the model must have a :func:`logit_layer`.

    Attributes:
        calls: Calls of the backbone since it was opened, or since they were last taken.
        logits: The last logits, None where there are none.
    """

    def __init__(self, model: nn.Module, backbone: str, logits: bool) -> None:
        self.backbone = model.get_submodule(backbone)
        self.layer = logit_layer(model) if logits else None
        self.calls = MapLog(self.backbone)
        self.logits: Tensor | None = None
        listeners = dict(self.calls.listeners)
        if self.layer is not None:
            listeners[self.layer] = self._keep_logits
        self._recorder = Recorder(model, listeners)

    def __enter__(self) -> 'OutputRecorder':
        self.take()
        self._recorder.open()
        return self

    def __exit__(self, *error) -> None:
        self._recorder.close()

    def take(self) -> tuple[list[BackboneCall], Tensor | None]:
        """Returns calls and logits and forgets them, since they hold the graph of a forward."""
        taken = list(self.calls), self.logits
        self.calls.clear()
        self.logits = None
        return taken

    def _keep_logits(self, name: str, layer: nn.Module, args: tuple, output: Any) -> None:
        self.logits = output
