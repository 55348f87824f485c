"""Checks name the argument, its value and the rule."""

import re

import pytest

from dynsp_mm.errors import UserError, check_choice, check_counts, check_number, check_rates


def test_it_is_a_value_error():
    assert issubclass(UserError, ValueError)


def test_counts():
    check_counts(a=1, b=7)
    check_counts(0, a=0)
    for value in (0, 2.0, True, None, '1'):
        text = re.escape(f'a={value!r}: must be a whole number >= 1')
        with pytest.raises(UserError, match=f'^{text}$'):
            check_counts(b=1, a=value)


def test_rates():
    check_rates(a=0, b=0.9)
    for value in (1, -0.1, True, 'x'):
        text = re.escape(f'a={value!r}: must be a number in [0, 1)')
        with pytest.raises(UserError, match=f'^{text}$'):
            check_rates(a=value)


def test_choices():
    assert check_choice('curve', 'linear', ('linear', 'cosine')) == 'linear'
    with pytest.raises(UserError, match="^curve='x': must be one of linear, cosine$"):
        check_choice('curve', 'x', ('linear', 'cosine'))


@pytest.mark.parametrize(
    'bounds, good, bad, rule',
    [
        (dict(), -5.5, True, 'a number'),
        (dict(low=0), 0, -1, 'a number >= 0'),
        (dict(low=0, low_open=True), 0.1, 0, 'a number > 0'),
        (dict(high=2), 2, 2.5, 'a number <= 2'),
        (dict(low=0, high=1, low_open=True), 1, 0, 'a number in (0, 1]'),
        (dict(low=0, high=1, high_open=True), 0, 1, 'a number in [0, 1)'),
    ],
)
def test_numbers(bounds, good, bad, rule):
    assert check_number('a', good, **bounds) == good
    for value in (bad, float('nan'), float('inf'), None, '1'):
        with pytest.raises(UserError, match=f'^{re.escape(f"a={value!r}: must be {rule}")}$'):
            check_number('a', value, **bounds)
