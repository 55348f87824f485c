"""Mistakes of users, and the checks that name them."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


class UserError(ValueError):
    """A mistake that the user can mend; its text names the thing, its value and the rule."""


def check_counts(least: int = 1, **counts: int) -> None:
    """Checks whole numbers.

    Raises:
        UserError: A named argument is no whole number, or below ``least``.
    """
    for name, value in counts.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise UserError(f'{name}={value!r}: must be a whole number >= {least}')


def check_rates(**rates: float) -> None:
    """Checks probabilities.

    Raises:
        UserError: A named argument is no number in [0, 1).
    """
    for name, value in rates.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value < 1:
            raise UserError(f'{name}={value!r}: must be a number in [0, 1)')


def check_choice(name: str, value: Any, choices: Sequence) -> Any:
    """Checks a name against the known ones and returns it.

    Raises:
        UserError: ``value`` is none of ``choices``.
    """
    if value not in choices:
        raise UserError(f'{name}={value!r}: must be one of {", ".join(map(str, choices))}')
    return value
