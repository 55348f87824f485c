"""Measurements of a benchmark as a table, CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

MIB = 2**20


class Measurement(NamedTuple):
    """One candidate in one setting.

    Attributes:
        part: What is measured, 'backbone' or 'model'.
        step: Kind of step, 'inference', 'training' or 'training with teacher'.
        compiled: Whether torch.compile had the backbone.
        batch: Number of images.
        height: Height of each image in pixels.
        width: Width of each image in pixels.
        dtype: Precision, 'float32', 'bf16' or 'fp16'.
        candidate: Name on the command line.
        images_per_s: Images per second, ``batch / median_s``.
        median_s: Median time of a step in seconds.
        ratio: Median over rounds of the time divided by the baseline's in the same round.
        ratio_p20: 20th percentile of those ratios.
        ratio_p80: 80th percentile of those ratios.
        rounds: Number of timed rounds.
        macs: Multiply-adds of the backbone's forward, per image.
        macs_ratio: ``macs`` divided by the baseline's; None where that has none.
        peak_bytes: Largest memory that a step holds at a time, beyond what is held before it.
        rate_share: Multiply-adds per second divided by those of a large matrix product on the same
            machine; None for training and whole models, of which ``macs`` count the backbone only.
        backend: Backend with which the backbone was prepared for inference; None if it ran as it
            is.
        held_bytes: Weights and buffers of what is measured, prepared ones included.
    """

    part: str
    step: str
    compiled: bool
    batch: int
    height: int
    width: int
    dtype: str
    candidate: str
    images_per_s: float
    median_s: float
    ratio: float
    ratio_p20: float
    ratio_p80: float
    rounds: int
    macs: int
    macs_ratio: float | None
    peak_bytes: int
    rate_share: float | None = None
    backend: str | None = None
    held_bytes: int | None = None


def format_table(rows: Sequence[Measurement]) -> str:
    """Markdown table of the measurements of one setting, in aligned columns."""
    cells = [
        [
            'candidate',
            'images/s',
            'median ms',
            'time ratio [p20, p80]',
            'GMACs',
            'MACs ratio',
            'peak MiB',
            'weights MiB',
        ]
    ]
    for row in rows:
        macs_ratio = '' if row.macs_ratio is None else f'{row.macs_ratio:.3f}'
        cells.append(
            [
                row.candidate,
                f'{row.images_per_s:.2f}',
                f'{row.median_s * 1e3:.2f}',
                f'{row.ratio:.3f} [{row.ratio_p20:.3f}, {row.ratio_p80:.3f}]',
                f'{row.macs / 1e9:.3f}',
                macs_ratio,
                f'{row.peak_bytes / MIB:.1f}',
                '' if row.held_bytes is None else f'{row.held_bytes / MIB:.1f}',
            ]
        )
    return align(cells)


def align(cells: Sequence[Sequence[str]]) -> str:
    """Markdown table of lines of cells, the first its header, in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        '| '
        + ' | '.join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        )
        + ' |'
        for line in cells
    ]
    lines.insert(
        1,
        '|'
        + '|'.join(['-' * (widths[0] + 2)] + ['-' * (width + 1) + ':' for width in widths[1:]])
        + '|',
    )
    return '\n'.join(lines)


def to_csv(rows: Sequence[Measurement]) -> str:
    """CSV of the measurements: a line of field names, then one for each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(Measurement._fields)
    writer.writerows(rows)
    return text.getvalue()


def to_json(rows: Sequence[Measurement], **about: Any) -> str:
    """JSON object that holds ``about`` and the list ``rows``."""
    content: dict[str, Any] = {**about, 'rows': [row._asdict() for row in rows]}
    return json.dumps(content, indent=1, allow_nan=False) + '\n'
