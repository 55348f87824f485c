"""The one way to listen to a model: callbacks after forwards of its modules."""

from collections.abc import Callable, Mapping
from functools import partial
from threading import get_ident
from typing import Any

import torch.nn as nn

from ..compat import is_compiling
from ..errors import UserError

Listener = Callable[[str, nn.Module, tuple, Any], None]


class Recorder:
    """Calls listeners after forwards of a model's modules, and changes nothing of what it computes.

    It hears the thread that opened it, and no other that runs the same modules meanwhile. Replicas
    that ``DataParallel`` runs in threads of its own are heard, and compiled code in all threads.

    A context manager that listens while it is open, and may be opened again once it is closed::

        shapes = []

        def note(name, module, args, output):
            shapes.append((name, output.shape))

        with Recorder(model, {nn.Conv2d: note}):
            model(image)

    Args:
        model: Module whose modules are heard, itself among them.
        listeners: Callables of ``(name, module, args, output)``, by what they listen to: a class,
            for all modules of it, or one module. The name is the module's in the model, and args
            are the positional arguments of its forward.
    """

    def __init__(
        self, model: nn.Module, listeners: Mapping[type[nn.Module] | nn.Module, Listener]
    ) -> None:
        self._model = model
        self._listeners = dict(listeners)
        self._handles: list = []

    def __enter__(self) -> 'Recorder':
        self.open()
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def open(self) -> None:
        """Starts to listen to the modules that the model has now.

        Raises:
            RuntimeError: The recorder is open already.
            UserError: A module to listen to is none of the model's.
        """
        if self._handles:
            raise RuntimeError('the recorder is open already')
        modules = dict(self._model.named_modules())
        for kind, listener in self._listeners.items():
            if isinstance(kind, type):
                found = [item for item in modules.items() if isinstance(item[1], kind)]
            else:
                found = [item for item in modules.items() if item[1] is kind]
                if not found:
                    self.close()
                    raise UserError(
                        f'{type(kind).__name__} to listen to: is no module of this '
                        f'{type(self._model).__name__}'
                    )
            for name, module in found:
                hook = partial(_call, listener, name, None if is_compiling() else get_ident())
                self._handles.append(module.register_forward_hook(hook))

    def close(self) -> None:
        """Stops listening; does nothing where the recorder is closed."""
        while self._handles:
            self._handles.pop().remove()


def _call(
    listener: Listener, name: str, thread: int | None, module: nn.Module, args: tuple, output: Any
) -> None:
    """Returns nothing, since what a forward hook returns replaces the output."""
    # A thread, not a context: what a notebook opens in one cell is heard in the next.
    if (
        thread is None
        or is_compiling()
        or get_ident() == thread
        or getattr(module, '_is_replica', False)
    ):
        listener(name, module, args, output)
