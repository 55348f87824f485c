"""Mistakes of users, and the checks that name them."""

from collections.abc import Sequence
from math import isfinite
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


def check_number(
    name: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    high_open: bool = False,
) -> Any:
    """Checks a finite number against its bounds and returns it.

    Args:
        name: Name of the argument, for the message.
        value: The number.
        low: Lower bound, None for none.
        high: Upper bound, None for none.
        low_open: Whether the lower bound itself is too low.
        high_open: Whether the upper bound itself is too high.

    Raises:
        UserError: ``value`` is no number (a bool is none), not finite, or out of bounds.
    """
    fits = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    if fits and low is not None:
        fits = low < value or (value == low and not low_open)
    if fits and high is not None:
        fits = value < high or (value == high and not high_open)
    if fits:
        return value
    rule = 'a number'
    if low is not None and high is not None:
        rule += f' in {"(" if low_open else "["}{low:g}, {high:g}{")" if high_open else "]"}'
    elif low is not None:
        rule += f' {">" if low_open else ">="} {low:g}'
    elif high is not None:
        rule += f' {"<" if high_open else "<="} {high:g}'
    raise UserError(f'{name}={value!r}: must be {rule}')
