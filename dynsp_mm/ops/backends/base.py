"""What a backend provides: the steps that prepared modules are made of.

Shape legend: M tokens, K of them chosen by ``rows``, (K,) int64 without repetition; None means
all, K = M. C input channels, C' output channels. B images of (H, W) positions; W windows of n
tokens, h heads of d channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

_DEVICE_WORDS = {'cpu': 'the CPU', 'cuda': 'a CUDA device'}


class Packed(NamedTuple):
    """A linear layer in the form that its backend multiplies fastest.

    Attributes:
        weight: Weight (C', C), in a layout of the backend's.
        bias: Bias (C',) or None.
    """

    weight: Tensor
    bias: Tensor | None


class Backend(ABC):
    """One implementation of the steps of prepared modules, on one device.

    Subclasses say where they run; :func:`~dynsp_mm.ops.backends.registry.register_backend` makes
    them known. The steps have no gradients.

    Args:
        device: Device of all tensors.

    Attributes:
        name: Name by which users ask for the backend.
        devices: Types of devices it runs on, such as ``('cpu',)``; None for any.
        dtypes: Dtypes it computes in; None for any.
        tolerances: Dtype -> largest error of a step, relative to the largest value of what eager
            torch computes in float64. The tests hold each step to it in each of these dtypes.
        preferred_on: Types of devices on which 'auto' takes this backend where it can run.
        device: Device of all tensors.
        chunk: Number of rows to take through a chain of steps before the next ones; None for all
            at once.
    """

    name: ClassVar[str]
    devices: ClassVar[tuple[str, ...] | None] = None
    dtypes: ClassVar[tuple[torch.dtype, ...] | None] = None
    tolerances: ClassVar[Mapping[torch.dtype, float]]
    preferred_on: ClassVar[tuple[str, ...]] = ()

    chunk: int | None = None

    def __init__(self, device: torch.device):
        self.device = device

    # ------------------------------------------------------------------ where it runs
    @classmethod
    def not_supported_reasons(cls, device: torch.device, dtype: torch.dtype) -> list[str]:
        """All reasons why the backend cannot run on such tensors; empty where it can.

        Args:
            device: Device of the tensors.
            dtype: Dtype of the tensors.
        """
        return cls.device_reasons(device) + cls.dtype_reasons(dtype)

    @classmethod
    def device_reasons(cls, device: torch.device) -> list[str]:
        """One reason for a type of device that is none of :attr:`devices`."""
        if cls.devices is None or device.type in cls.devices:
            return []
        words = [_DEVICE_WORDS.get(kind, f'a device of type {kind}') for kind in cls.devices]
        return [f'needs {_alternatives(words)}, the tensors are on {device}']

    @classmethod
    def dtype_reasons(cls, dtype: torch.dtype) -> list[str]:
        """One reason for a dtype that is none of :attr:`dtypes`."""
        if cls.dtypes is None or dtype in cls.dtypes:
            return []
        return [
            f'needs {_alternatives([dtype_name(known) for known in cls.dtypes])}, '
            f'the tensors are {dtype_name(dtype)}'
        ]

    # ------------------------------------------------------------------ steps
    @abstractmethod
    def pack(self, weight: Tensor, bias: Tensor | None) -> Packed:
        """Prepares a linear layer. Later changes of its tensors are not seen.

        Args:
            weight: Weight (C', C).
            bias: Bias (C',) or None.
        """

    @abstractmethod
    def gather_norm(self, tokens: Tensor, rows: Tensor | None, eps: float) -> Tensor:
        """Subtracts from each chosen row its mean and divides it by its deviation.

        Args:
            tokens: Matrix (M, C).
            rows: Numbers (K,) of the rows.
            eps: Number added to the variance.

        Returns:
            (K, C).
        """

    @abstractmethod
    def linear(self, x: Tensor, layer: Packed) -> Tensor:
        """Applies a linear layer: (K, C) -> (K, C')."""

    @abstractmethod
    def linear_gelu(self, x: Tensor, layer: Packed) -> Tensor:
        """Applies a linear layer and the exact GELU: (K, C) -> (K, C')."""

    @abstractmethod
    def linear_add_(self, target: Tensor, rows: Tensor | None, x: Tensor, layer: Packed) -> None:
        """Adds a linear layer's output to chosen rows of a matrix, in place.

        Args:
            target: Matrix (M, C') that is written to.
            rows: Numbers (K,) of the rows.
            x: Input (K, C) of the layer.
            layer: Layer, C -> C'.
        """

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Applies multi-head attention within each window.

        Args:
            q: Queries (W, h, n, d), scaled already.
            k: Keys (W, h, n, d).
            v: Values (W, h, n, d).
            bias: Numbers added to the scores, of any shape that broadcasts to (W, h, n, n); None
                for zero.

        Returns:
            (W, h, n, d).
        """

    @abstractmethod
    def convolve(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """Applies a depthwise convolution to channels-last maps: (B, C, H, W) -> (B, C, H, W).

        Args:
            conv: Layer with C groups. Its weights are read at each call, its hooks are called.
            x: Maps (B, C, H, W) whose memory is (B, H, W, C).
        """


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype without its module, such as 'float32'."""
    return str(dtype).removeprefix('torch.')


def _alternatives(words: Sequence[str]) -> str:
    """'a', 'a or b', 'a, b or c'."""
    *first, last = words
    return f'{", ".join(first)} or {last}' if first else last
