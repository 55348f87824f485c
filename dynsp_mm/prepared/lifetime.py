"""Lifetime of a prepared form: made, held beside the weights, dropped when they change.

A prepared form is a second form of a module for inference. It computes what the module computes,
in fewer passes over memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from mmcv.cnn import Linear as MMCVLinear
from torch import Tensor

from ..compat import is_autocast_on, is_compiling, is_faking
from ..ops import Backend

# Packages whose modules the forms know.
KNOWN = ('torch.nn.', 'mmcv.', 'mmengine.', f'{__package__.partition(".")[0]}.')

_only_modules: ContextVar[bool] = ContextVar('only_modules', default=False)


@contextmanager
def unprepared() -> Iterator[None]:
    """Context manager in which modules run as they are, whether they were prepared or not.

    It concerns the thread that entered it.
    """
    token = _only_modules.set(True)
    try:
        yield
    finally:
        _only_modules.reset(token)


class _Source(NamedTuple):
    """A tensor or module that a prepared form was made of, and where its module keeps it."""

    module: nn.Module
    holder: str
    name: str
    value: Tensor | nn.Module
    state: tuple | None

    @classmethod
    def all_of(cls, module: nn.Module) -> tuple['_Source', ...]:
        """The modules inside a module, and their parameters and buffers."""
        return tuple(
            cls(inner, holder, name, value, _state(value))
            for inner in module.modules()
            for holder in ('_parameters', '_buffers', '_modules')
            for name, value in vars(inner)[holder].items()
            if value is not None
        )

    @property
    def unchanged(self) -> bool:
        """Whether it is still the same, and nothing was written to it."""
        held = vars(self.module)[self.holder].get(self.name)
        return held is self.value and _state(self.value) == self.state


def refuse(*_: Any) -> None:
    """Raises the RuntimeError of whatever needs released weights; serves as a hook, too."""
    raise RuntimeError(
        'the weights of this backbone were released by prepare_for_inference('
        'release_weights=True): it runs in eval mode without gradients, autocast and compilers, '
        'and cannot be saved, loaded, copied, moved, prepared or trained; for that build it anew '
        'and load its checkpoint'
    )


class _Form(NamedTuple):
    """Holds a prepared form, which is not copied or saved with its module.

    Attributes:
        value: The form.
        sources: What it was made of.
        device: Type of the device of its tensors.
        released: Whether some of these are gone, see :func:`release_weights`.
    """

    value: Any
    sources: tuple[_Source, ...]
    device: str
    released: bool = False

    def released_from(self, module: nn.Module) -> '_Form':
        """The form after weights of its module were released."""
        return self._replace(released=True, sources=_Source.all_of(module))

    def __deepcopy__(self, memo: dict) -> None:
        if self.released:
            refuse()
        return

    def __reduce__(self) -> tuple:
        if self.released:
            refuse()
        return type(None), ()


class Preparable(nn.Module):
    """A module with a second, prepared form of its forward for inference.

    :meth:`prepare` makes the form of the weights as they are then. The form is not in the state
    dict. It is dropped by whatever may change the weights: training mode, loading, a move to
    another device or dtype, other tensors or layers in their place, writing to them. Writing *into*
    ``.data`` and what a fused optimizer does in eval mode go unnoticed and leave a stale form
    behind. Copies of the module are not prepared. Hooks of modules inside it are not called.
    """

    _form: _Form | None = None

    def prepare(self, backend: Backend) -> bool:
        """Makes the prepared form; False where this module has none that is exact."""
        self.discard_prepared()
        if not all(_is_plain(inner) for inner in self.modules()):
            return False
        with torch.inference_mode(False), torch.no_grad():
            value = self._prepare(backend)
        if value is not None:
            device = next(self.parameters()).device.type
            self._form = _Form(value, _Source.all_of(self), device)
        return value is not None

    def check_weights(self) -> None:
        """Raises a RuntimeError if weights were released."""
        if self._form is not None and self._form.released:
            refuse()

    def discard_prepared(self) -> None:
        """Drops the prepared form."""
        self.check_weights()
        self._form = None

    def prepared_tensors(self) -> list[Tensor]:
        """The tensors that the prepared form holds; none without a form."""
        return [] if self._form is None else list(_tensors_in(self._form.value))

    def _prepare(self, backend: Backend) -> Any:
        """The prepared form, None where there is none."""
        raise NotImplementedError

    @property
    def prepared(self) -> Any:
        """The prepared form where it may run, None where the module is to run as it is.

        It has no gradients, is made for one dtype, and hides its products from compilers.
        """
        form = self._form
        if form is None:
            return None
        if (
            is_compiling()  # first: compilers know no context variables
            or is_faking()
            or _only_modules.get()
            or torch.is_grad_enabled()
            or is_autocast_on(form.device)
        ):
            self.check_weights()
            return None
        if not all(source.unchanged for source in form.sources):
            self.discard_prepared()
            return None
        return form.value

    def train(self, mode: bool = True) -> 'Preparable':
        if mode:
            self.discard_prepared()
        return super().train(mode)

    def _apply(self, *args, **kwargs):
        self.discard_prepared()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        self.discard_prepared()
        super()._load_from_state_dict(*args, **kwargs)

    def _replicate_for_data_parallel(self):
        replica = super()._replicate_for_data_parallel()
        replica.discard_prepared()  # its weights will be on another device
        return replica


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
        yield from value.buffers()
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _tensors_in(entry)


def _state(value: Tensor | nn.Module) -> tuple | None:
    """Where a tensor's values lie, and a number that grows with each write to them.

    Tensors of inference mode do not tell of writes.
    """
    if isinstance(value, nn.Module):
        return None
    return value.data_ptr(), None if value.is_inference() else value._version


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
