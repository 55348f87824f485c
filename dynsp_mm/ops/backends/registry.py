"""Which backends there are, and which one runs on given tensors."""

import logging

import torch

from ...errors import UserError
from .base import Backend

AUTO, REFERENCE = 'auto', 'eager'

#: Name -> class of each backend, in the order in which they were registered.
BACKEND_CLASSES: dict[str, type[Backend]] = {}
#: What :func:`resolve_backend` takes.
BACKENDS: list[str] = [AUTO]

_logger = logging.getLogger(__name__)


def register_backend(cls: type[Backend]) -> type[Backend]:
    """Makes a backend known by its name; a decorator of its class.

    Args:
        cls: Class with a ``name`` and ``tolerances``.

    Returns:
        ``cls``.

    Raises:
        UserError: If the name is taken, or a dtype has no tolerance.
    """
    if cls.name in BACKENDS:
        raise UserError(
            f'{cls.__name__}.name={cls.name!r}: is taken; the names are '
            + ', '.join(map(repr, BACKENDS))
        )
    missing = [dtype for dtype in cls.dtypes or () if dtype not in cls.tolerances]
    if missing:
        raise UserError(
            f'{cls.__name__}.tolerances={cls.tolerances!r}: must name each of its dtypes; '
            f'{missing[0]} is missing'
        )
    BACKEND_CLASSES[cls.name] = cls
    BACKENDS.append(cls.name)
    return cls


def check_backend(name: str) -> str:
    """Returns a name that is one of :data:`BACKENDS`.

    Raises:
        UserError: For another name.
    """
    if name not in BACKENDS:
        choices = ', '.join(map(repr, BACKENDS))
        raise UserError(f'backend={name!r}: must be one of {choices}')
    return name


def resolve_backend(name: str, device: torch.device | str, dtype: torch.dtype) -> str:
    """The backend that a name stands for on given tensors.

    Args:
        name: Name of a backend, or 'auto': the first backend that prefers this type of device
            and can run, else eager.
        device: Device of the tensors.
        dtype: Dtype in which they are computed.

    Returns:
        Name of a backend.

    Raises:
        UserError: For another name, or a named backend that cannot run, with all its reasons.
    """
    check_backend(name)
    device = torch.device(device)
    if name == AUTO:
        return _prefer(device, dtype)[0]
    reasons = BACKEND_CLASSES[name].not_supported_reasons(device, dtype)
    if reasons:
        raise UserError(f'backend={name!r}: {"; ".join(reasons)}')
    return name


def fallback_reasons(device: torch.device | str, dtype: torch.dtype) -> dict[str, list[str]]:
    """Why 'auto' does not take the backends that it prefers on this type of device.

    Args:
        device: Device of the tensors.
        dtype: Dtype in which they are computed.

    Returns:
        Name of each backend that it would have taken first -> all reasons why that cannot run;
        empty where 'auto' takes its first choice.
    """
    return _prefer(torch.device(device), dtype)[1]


def find_backend(name: str, device: torch.device | str, dtype: torch.dtype) -> Backend:
    """The backend that a name stands for on given tensors, ready to run.

    Where 'auto' does not take its first choice, the log (level INFO) says why.

    Args:
        name: Name of a backend, or 'auto', as :func:`resolve_backend` takes it.
        device: Device of the tensors.
        dtype: Dtype in which they are computed.

    Raises:
        UserError: As :func:`resolve_backend` does.
    """
    device = torch.device(device)
    found = resolve_backend(name, device, dtype)
    if name == AUTO:
        for other, reasons in fallback_reasons(device, dtype).items():
            _logger.info('backend %r cannot run, %r runs: %s', other, found, '; '.join(reasons))
    return BACKEND_CLASSES[found](device)


def _prefer(device: torch.device, dtype: torch.dtype) -> tuple[str, dict[str, list[str]]]:
    """The choice of 'auto', and why each backend before it cannot run."""
    refused: dict[str, list[str]] = {}
    for name, cls in BACKEND_CLASSES.items():
        if device.type in cls.preferred_on:
            reasons = cls.not_supported_reasons(device, dtype)
            if not reasons:
                return name, refused
            refused[name] = reasons
    return REFERENCE, refused
