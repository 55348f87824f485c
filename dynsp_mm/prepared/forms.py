"""Folded inference forms: what a block computes, in fewer passes over memory.

Shape legend: B images, N positions, M = B * N tokens, C channels; windows of n tokens, h heads.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Optional

import torch
import torch.nn as nn
from mmcv.cnn import Linear as MMCVLinear
from mmcv.cnn.bricks.transformer import FFN
from torch import Tensor

from ..compat import is_autocast_on, is_compiling
from ..ops import WINDOWS, Kernels, Packed, fold_norm, fold_scale, named_range, parts, plan_windows

# Packages whose modules the forms know.
KNOWN = ('torch.nn.', 'mmcv.', 'mmengine.', f'{__package__.partition(".")[0]}.')

_reference_only: ContextVar[bool] = ContextVar('reference_only', default=False)


@contextmanager
def reference_forms() -> Iterator[None]:
    """Context manager in which modules run as they are, whether they were folded or not.

    It concerns the thread that entered it.
    """
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)


class _Source(NamedTuple):
    """A tensor that a folded form was made of, and where its module keeps it."""

    holder: dict[str, Tensor | None]
    name: str
    tensor: Tensor
    version: int | None

    @classmethod
    def all_of(cls, module: nn.Module) -> tuple['_Source', ...]:
        """The parameters and buffers of a module and of those inside it."""
        return tuple(
            cls(holder, name, tensor, _version(tensor))
            for part in module.modules()
            for holder in (part._parameters, part._buffers)
            for name, tensor in holder.items()
            if tensor is not None
        )

    @property
    def unchanged(self) -> bool:
        """Whether it is still the same tensor and nothing was written to it."""
        return self.holder.get(self.name) is self.tensor and _version(self.tensor) == self.version


def _refuse(*_: Any) -> None:
    """For whatever needs weights that were released; also a hook."""
    raise RuntimeError(
        'the weights of this backbone were released by prepare_for_inference('
        'release_weights=True): it runs in eval mode without gradients, autocast and compilers, '
        'and cannot be saved, loaded, copied, moved, prepared or trained; for that build it anew '
        'and load its checkpoint'
    )


class _Form(NamedTuple):
    """Holds a folded form, which is not copied or saved with its module.

    Attributes:
        value: The form.
        sources: The tensors that it was made of.
        released: Whether some of these are gone, see :func:`release_weights`.
    """

    value: Any
    sources: tuple[_Source, ...]
    released: bool = False

    def __deepcopy__(self, memo: dict) -> None:
        if self.released:
            _refuse()
        return

    def __reduce__(self) -> tuple:
        if self.released:
            _refuse()
        return type(None), ()


class Foldable(nn.Module):
    """A module with a second, folded form of its forward for inference.

    :meth:`fold` makes the form of the weights as they are then. It is not part of the state dict,
    and is dropped by whatever may change the weights: training mode, loading, a move to another
    device or dtype, other tensors in their place, writing to them. Writing to ``.data`` and what a
    fused optimizer does in eval mode go unnoticed and leave a stale form behind. Copies of the
    module are not folded. Hooks of modules inside it are not called.
    """

    _form: _Form | None = None

    def fold(self, kernels: Kernels) -> bool:
        """Makes the folded form; False where this module has none that is exact."""
        self.unfold()
        if not all(_is_plain(part) for part in self.modules()):
            return False
        with torch.inference_mode(False), torch.no_grad():
            value = self._fold(kernels)
        if value is not None:
            self._form = _Form(value, _Source.all_of(self))
        return value is not None

    def check_weights(self) -> None:
        """Raises a RuntimeError if weights were released."""
        if self._form is not None and self._form.released:
            _refuse()

    def unfold(self) -> None:
        """Drops the folded form."""
        self.check_weights()
        self._form = None

    def _fold(self, kernels: Kernels) -> Any:
        """The folded form, None where there is none."""
        raise NotImplementedError

    def prepared_tensors(self) -> list[Tensor]:
        """The tensors that the folded form holds; empty where there is none."""
        return [] if self._form is None else _tensors_of(self._form.value)

    @property
    def folded(self) -> Any:
        """The folded form where it may run, None where the module is to run as it is.

        It has no gradients, is made for one dtype, and hides its products from compilers.
        """
        form = self._form
        if (
            form is None
            or _reference_only.get()
            or torch.is_grad_enabled()
            or is_compiling()
            or is_autocast_on(form.sources[0].tensor.device.type)
        ):
            self.check_weights()
            return None
        if not all(source.unchanged for source in form.sources):
            self.unfold()
            return None
        return form.value

    def train(self, mode: bool = True) -> 'Foldable':
        if mode:
            self.unfold()
        return super().train(mode)

    def _apply(self, *args, **kwargs):
        self.unfold()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        self.unfold()
        super()._load_from_state_dict(*args, **kwargs)

    def _replicate_for_data_parallel(self):
        replica = super()._replicate_for_data_parallel()
        replica.unfold()  # its weights will be on another device
        return replica


def release_weights(model: nn.Module) -> None:
    """Lets go of weights of linear layers that folded forms hold in another layout.

    A weight stays where something without a folded form has it too. The parameters of the others
    become NaN of their shape, which take no memory. Using, saving or copying what lost its weights
    raises a RuntimeError from then on.

    Args:
        model: All whose parts may share weights.
    """
    needed = set()

    def collect(module: nn.Module) -> None:
        if not (isinstance(module, Foldable) and module._form is not None):
            needed.update(map(id, module._parameters.values()))
            for child in module.children():
                collect(child)

    collect(model)
    for part in model.modules():
        if isinstance(part, Foldable) and part._form is not None:
            for layer in part.modules():
                # Tensors of inference mode cannot be exchanged.
                if (
                    isinstance(layer, nn.Linear)
                    and id(layer.weight) not in needed
                    and not layer.weight.is_inference()
                ):
                    part._form = part._form._replace(released=True)
                    _release(layer)


def _release(layer: nn.Linear) -> None:
    if layer.weight.stride() != (0, 0):  # the layer may be shared
        layer.weight.data = layer.weight.new_full((1, 1), math.nan).expand_as(layer.weight)
    layer.register_forward_pre_hook(_refuse)
    # Called by mmengine's way to make state dicts, too.
    layer._register_state_dict_hook(_refuse)


def _tensors_of(form: Any) -> list[Tensor]:
    """All tensors in a form: a tensor, a module, or nested tuples of those."""
    if isinstance(form, Tensor):
        return [form]
    if isinstance(form, nn.Module):
        return [*form.parameters(), *form.buffers()]
    if isinstance(form, tuple):
        return [tensor for item in form for tensor in _tensors_of(item)]
    return []


def _version(tensor: Tensor) -> int | None:
    """Grows with each write to a tensor; those of inference mode do not tell."""
    return None if tensor.is_inference() else tensor._version


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is known, and a linear layer no more than its weights.

    Others, such as the adapters of LoRA, stand in for linear layers and compute something else.
    """
    if not f'{type(module).__module__}.'.startswith(KNOWN):
        return False
    # mmcv's also takes empty tensors with old versions of torch.
    return not isinstance(module, nn.Linear) or (
        type(module).forward in (nn.Linear.forward, MMCVLinear.forward)
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


def is_exact_gelu(act: nn.Module) -> bool:
    """Whether an activation is the GELU that kernels have."""
    return isinstance(act, nn.GELU) and act.approximate == 'none'


def pack_after_norm(
    kernels: Kernels,
    norm: nn.Module | None,
    weight: Tensor,
    bias: Tensor | None,
    order: Callable[[Tensor], Tensor] = lambda x: x,
) -> Packed | None:
    """A linear layer with the affine part of the layer norm before it.

    Args:
        kernels: What is to compute it.
        norm: The norm.
        weight: (C', C) of the linear layer.
        bias: (C',) or None.
        order: Puts the last axis of a tensor, C, into the order of the input's channels.

    Returns:
        None for what is no layer norm with weight and bias over C.
    """
    if (
        not isinstance(norm, nn.LayerNorm)
        or type(norm).forward is not nn.LayerNorm.forward
        or norm.weight is None
        or norm.bias is None
        or len(norm.normalized_shape) != 1
    ):
        return None
    return kernels.pack(*fold_norm(order(norm.weight), order(norm.bias), order(weight), bias))


class FoldedPath(NamedTuple):
    """One path of a block: layer norm, perhaps a hidden layer with GELU, a linear layer, a scale.

    Attributes:
        kernels: What computes it.
        eps: Of the layer norm.
        hidden: The layer with GELU; None in the fast path.
        out: The last layer.
    """

    kernels: Kernels
    eps: float
    hidden: Packed | None
    out: Packed

    @classmethod
    def of(
        cls, kernels: Kernels, norm: nn.Module, *linears: nn.Linear, scale: Tensor | None = None
    ) -> Optional['FoldedPath']:
        """From a layer norm, one or two linear layers and a scale (C,) of the result.

        Returns:
            None where the norm is no layer norm.
        """
        *hidden, out = linears
        last = fold_scale(scale, out.weight, out.bias)
        first = (hidden[0].weight, hidden[0].bias) if hidden else last
        packed = pack_after_norm(kernels, norm, *first)
        if packed is None:
            return None
        if hidden:
            return cls(kernels, norm.eps, packed, kernels.pack(*last))
        return cls(kernels, norm.eps, None, packed)

    @classmethod
    def of_ffn(
        cls, kernels: Kernels, norm: nn.Module, ffn: FFN, scale: Tensor | None = None
    ) -> Optional['FoldedPath']:
        """From a layer norm, mmcv's ``FFN`` without identity, and a scale (C,) of the result.

        Returns:
            None where the FFN has another depth, activation or a scale of its own.
        """
        if (
            ffn.num_fcs != 2
            or not isinstance(getattr(ffn, 'gamma2', nn.Identity()), nn.Identity)
            or not is_exact_gelu(ffn.layers[0][1])
        ):
            return None
        return cls.of(kernels, norm, ffn.layers[0][0], ffn.layers[1], scale=scale)

    def add_(self, target: Tensor, tokens: Tensor, rows: Tensor | None = None) -> None:
        """Adds to rows of ``target`` what the path makes of these rows of ``tokens``.

        Args:
            target: (M, C), may be ``tokens`` itself.
            tokens: (M, C).
            rows: (K,) int64, none twice; None for all.
        """
        for part in parts(len(tokens) if rows is None else len(rows), self.kernels.chunk):
            if rows is None:
                self._add_part_(target[part], tokens[part], None)
            else:
                self._add_part_(target, tokens, rows[part])

    def _add_part_(self, target: Tensor, tokens: Tensor, rows: Tensor | None) -> None:
        x = self.kernels.gather_norm(tokens, rows, self.eps)
        if self.hidden is not None:
            x = self.kernels.linear_gelu(x, self.hidden)
        self.kernels.linear_add_(target, rows, x, self.out)


class FoldedWindowAttention(NamedTuple):
    """(Shifted-)window attention with the layer norm before it.

    Positions are projected before windows are padded, and only the windows at the borders of the
    map have a mask.

    Attributes:
        kernels: What computes it.
        eps: Of the layer norm.
        qkv: Projection to queries, which are scaled already, keys and values.
        padding: (3C,) what padding has in their place.
        bias: (1, h, n, n) position bias.
        out: Output projection.
        window: Window side.
    """

    kernels: Kernels
    eps: float
    qkv: Packed
    padding: Tensor
    bias: Tensor
    out: Packed
    window: int

    def add_(self, tokens: Tensor, batch: int, hw: tuple[int, int], shift: int) -> None:
        """Adds to ``tokens`` (M, C), M = batch * H * W, the attention's output for them.

        No window reads what another one writes.

        Args:
            tokens: (M, C).
            batch: Images.
            hw: Size (H, W) of the maps.
            shift: Cyclic shift.
        """
        with named_range(WINDOWS):
            self._add_(tokens, batch, hw, shift)

    def _add_(self, tokens: Tensor, batch: int, hw: tuple[int, int], shift: int) -> None:
        plan = plan_windows(batch, tuple(hw), self.window, shift, tokens.device)
        n = self.window**2
        chunk = self.kernels.chunk and max(1, 2 * self.kernels.chunk // n)
        for part in parts(len(plan.inner) // n, chunk):
            rows = plan.inner[part.start * n : part.stop * n]
            x = self._attend(self._project_in(tokens, rows), self.bias)
            self.kernels.linear_add_(tokens, rows, x, self.out)
        if len(plan.border):
            qkv = self.padding.repeat(plan.mask.shape[0] * n, 1)
            qkv.index_copy_(0, plan.places, self._project_in(tokens, plan.border))
            x = self._attend(qkv, self.bias + plan.mask.to(self.bias.dtype))
            self.kernels.linear_add_(tokens, plan.border, x.index_select(0, plan.places), self.out)

    def _project_in(self, tokens: Tensor, rows: Tensor) -> Tensor:
        return self.kernels.linear(self.kernels.gather_norm(tokens, rows, self.eps), self.qkv)

    def _attend(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """(windows * n, 3C) -> (windows * n, C)."""
        heads, n = self.bias.shape[1:3]
        q, k, v = qkv.view(-1, n, 3, heads, qkv.shape[1] // 3 // heads).permute(2, 0, 3, 1, 4)
        x = self.kernels.attend(q, k, v, bias)
        return x.transpose(1, 2).reshape(len(qkv), -1)
