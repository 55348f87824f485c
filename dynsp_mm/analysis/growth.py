"""How time and memory grow: lines for plots from the files of a benchmark."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from .measurements import MIB, Measurement

# '@sparse=0.7' and '@keep_ratios=0.7', which stand for falling ratios, '@keep_ratios=0.7,0.7,0.7'.
_RATIO = re.compile(r'@(sparse|keep_ratios)=([\d.,]+)(?=[@ ]|$)')


class Record(NamedTuple):
    """A measurement and the machine it was made on."""

    measurement: Measurement
    machine: str


class Point(NamedTuple):
    """One measurement in a plot.

    Attributes:
        x: Value of what grows; None where there is none, such as a dense network's keep ratio.
        milliseconds: Time per image.
        mebibytes: Largest memory held at a time, of the whole batch.
    """

    x: float | None
    milliseconds: float
    mebibytes: float


def read_records(path: Path) -> list[Record]:
    """The measurements of a JSON file of ``benchmark.py``.

    Raises:
        UserError: If the file cannot be read or is no such file.
    """
    try:
        content = json.loads(path.read_text())
        rows = [Measurement(**row) for row in content['rows']]
        hardware = content['hardware']
        machine = hardware['accelerator'] or f'{hardware["cpu"]}, {hardware["threads"]} threads'
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: is no JSON file that benchmark.py wrote: {type(error).__name__}: {error}'
        ) from error
    return [Record(row, machine) for row in rows]


def side(row: Measurement) -> float:
    """Pixels of the side of a square image of as many pixels."""
    return (row.height * row.width) ** 0.5


def keep_ratio(row: Measurement) -> float | None:
    """Ratio at the first predictor, by the candidate's name; None where that has no single one.

    It is R of '@sparse=R' and '@keep_ratios=R', whose other ratios lie 0.2 and 0.4 below, and of
    equal ratios, '@keep_ratios=R,R,R'; the ratio of '@dense' counts as none.
    """
    found = _RATIO.search(row.candidate)
    ratios = {float(text) for text in found[2].split(',') if text} if found else ()
    return ratios.pop() if len(ratios) == 1 else None


class Axis(NamedTuple):
    """What can grow: its label, its value and whether its scale is logarithmic."""

    label: str
    value: Callable[[Measurement], float | None]
    log: bool


AXES = dict(
    side=Axis('image side (square root of its pixels)', side, True),
    batch=Axis('images in a batch', lambda row: row.batch, True),
    keep_ratio=Axis('keep ratio of the first predictor', keep_ratio, False),
)


def lines(records: Sequence[Record], against: str) -> dict[str, list[Point]]:
    """Points of each line, ordered by what grows.

    A line is a candidate in one setting; its name says of the setting what differs between lines.
    Against keep ratio those of one network that differ in it are a line; what has no keep ratio has
    one point without x.

    Args:
        records: Records of one or more files.
        against: Key of :data:`AXES`.

    Raises:
        UserError: If nothing varies along the axis.
    """
    axis = AXES[against]
    grouped: dict[tuple, list[Point]] = {}
    settings = [_setting(record, against) for record in records]
    differing = [
        key
        for key in (settings[0] if settings else ())
        if key == 'candidate' or len({setting[key] for setting in settings}) > 1
    ]
    for record, setting in zip(records, settings):
        row = record.measurement
        point = Point(axis.value(row), row.median_s / row.batch * 1e3, row.peak_bytes / MIB)
        grouped.setdefault(tuple(setting[key] for key in differing), []).append(point)
    values = sorted(
        {point.x for points in grouped.values() for point in points if point.x is not None}
    )
    if len(values) < 2:
        raise UserError(
            f'against={against}: needs measurements with two or more values of it; '
            f'there {"is only " + format(values[0], "g") if values else "is none"}'
        )
    return {
        ', '.join(map(str, key)): sorted(points, key=lambda point: point.x or 0)
        for key, points in grouped.items()
    }


def _setting(record: Record, against: str) -> dict[str, Any]:
    """What tells lines apart, as it stands in their names."""
    row = record.measurement
    setting = dict(
        candidate=row.candidate,
        part=row.part,
        step=row.step,
        dtype=row.dtype,
        compiled='compiled' if row.compiled else 'eager',
        batch=f'batch {row.batch}',
        size=f'{row.height} x {row.width}',
        machine=record.machine,
    )
    if against == 'keep_ratio' and keep_ratio(row) is not None:
        setting['candidate'] = _RATIO.sub(_letter, row.candidate)
    elif against in ('side', 'batch'):
        del setting['size' if against == 'side' else 'batch']
    return setting


def _letter(found: re.Match) -> str:
    """The change with letters for its ratios: '@keep_ratios=r,r,r'."""
    return f'@{found[1]}=' + ','.join('r' for text in found[2].split(',') if text)
