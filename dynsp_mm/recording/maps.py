"""Input and normalised maps of a backbone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch.nn as nn
from torch import Tensor

from .. import families
from ..layers import LayerNorm2d
from .recorder import Listener, Recorder


class BackboneCall(NamedTuple):
    """Input of a backbone, (B, C, H, W), and its normalised maps, each (B, C_i, H_i, W_i).

    Maps keep their graph in training. A backbone that returns averaged maps has its whole maps
    here, normalised position by position.
    """

    image: Tensor
    maps: tuple[Tensor, ...]


class MapLog(list[BackboneCall]):
    """Forwards of one backbone, in their order.

    Args:
        backbone: A module that returns a tuple of maps, or a ``DynamicConvNeXt`` that averages
            them.

    Attributes:
        listeners: The log as listeners of a :class:`Recorder`.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self._averaging = averaging_norms(backbone)
        self._whole: list[Tensor] = []
        self.listeners: dict[nn.Module, Listener] = {backbone: self._finish}
        self.listeners.update((norm, self._keep_whole) for norm in self._averaging)

    def _keep_whole(self, name: str, norm: LayerNorm2d, args: tuple, output: Tensor) -> None:
        self._whole.append(norm.forward(args[0]))

    def _finish(
        self, name: str, backbone: nn.Module, args: tuple, output: tuple[Tensor, ...]
    ) -> None:
        if self._averaging:
            output = self._whole[-len(self._averaging) :]  # a forward that raised left some
            self._whole = []
        self.append(BackboneCall(args[0], tuple(output)))


def averaging_norms(backbone: nn.Module) -> list[LayerNorm2d]:
    """Finds the output norms that average a map before they normalise it; none in most backbones.

    The family's card says which argument pools maps. A ``DynamicConvNeXt`` with
    ``gap_before_final_norm`` gives ``norm{i}`` the whole map and asks for the norm of its mean,
    so the norm of the whole map is computed by whoever listens, and by nobody else.
    """
    card = families.of(backbone)
    if card is None or not card.pooled or not getattr(backbone, card.pooled):
        return []
    norms = [getattr(backbone, card.names.out_norm.format(i)) for i in backbone.out_indices]
    return [norm for norm in norms if isinstance(norm, LayerNorm2d)]


@contextmanager
def record_maps(backbone: nn.Module) -> Iterator[list[BackboneCall]]:
    """Records input and normalised maps of each forward of a backbone in this thread.

    Args:
        backbone: A module that returns a tuple of maps, or a ``DynamicConvNeXt`` that averages
            them.

    Yields:
        A list with one entry for each forward inside the ``with`` block.
    """
    log = MapLog(backbone)
    with Recorder(backbone, log.listeners):
        yield log
