#!/usr/bin/env python
"""Writes the tables of docs/PERFORMANCE.md from the results of this folder.

    python benchmarks/tables.py

A table stands between ``<!-- NAME -->`` and ``<!-- end of NAME -->``, NAME being a result of
commands.yml.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The checkout serves without being installed.
sys.path.insert(0, str(ROOT))

from mmengine.fileio import load  # noqa: E402

from dynsp_mm.analysis.measurements import MIB, align, write_whole  # noqa: E402
from dynsp_mm.tooling import options as cli  # noqa: E402

PAGE = ROOT / 'docs/PERFORMANCE.md'
MARKS = re.compile(r'<!-- ([\w-]+) -->\n.*?<!-- end of \1 -->', re.DOTALL)


def short(candidate, networks):
    """A candidate with the name that commands.yml has for its network."""
    for name, network in sorted(networks.items(), key=lambda item: -len(item[1])):
        if candidate.startswith(network):
            return name + candidate[len(network) :]
    return candidate


def setting_of(row):
    """What the candidates of a table have in common, in words."""
    return (
        f'{row["part"]}, {"inference" if row["step"] == "inference" else "training"}, batch '
        f'{row["batch"]}, {row["height"]} x {row["width"]}, {row["dtype"]}'
    )


def measured(content, networks):
    """A table for each setting of a benchmark."""
    tables = {}
    # Results of before weights were counted have none.
    weighed = content['rows'][0].get('held_bytes') is not None
    for row in content['rows']:
        cells = tables.setdefault(
            setting_of(row),
            [
                [
                    'network',
                    'ms',
                    'time ratio [p20, p80]',
                    'MACs ratio',
                    'peak MiB',
                    'share of rate',
                    *['weights MiB'] * weighed,
                ]
            ],
        )
        share = row['rate_share']
        cells.append(
            [
                short(row['candidate'], networks)
                + (', teacher' if row['step'] == 'training with teacher' else ''),
                f'{row["median_s"] * 1e3:.0f}',
                f'{row["ratio"]:.3f} [{row["ratio_p20"]:.3f}, {row["ratio_p80"]:.3f}]',
                # Of a whole model they are the backbone's.
                '' if row['part'] == 'model' else f'{row["macs_ratio"]:.3f}',
                f'{row["peak_bytes"] / MIB:.0f}',
                '' if share is None else f'{share:.2f}',
                *[f'{row["held_bytes"] / MIB:.0f}' for _ in range(weighed)],
            ]
        )
    bounds = content['bounds']
    rates = ', '.join(f'{rate / 1e9:.1f} GMAC/s' for rate in bounds['macs_per_s'].values())
    bound = (
        f'a large product runs at {rates}, a large copy at '
        f'{bounds["copy_bytes_per_s"] / 1e9:.1f} GB/s'
    )
    return [
        f'*{setting}, {content["rows"][0]["rounds"]} rounds; {bound}*\n\n{align(cells)}'
        for setting, cells in tables.items()
    ]


def profiled(content, networks):
    """A table of the shares of a profile."""
    parts = list(content['rows'][0]['seconds'])
    cells = [['network', 'ms, without a profiler', *parts]]
    for row in content['rows']:
        total = sum(row['seconds'].values())
        cells.append(
            [
                short(row['candidate'], networks),
                f'{row["unprofiled_s"] * 1e3:.0f}',
                *(f'{row["seconds"][part] / total:.1%}' for part in parts),
            ]
        )
    row = content['rows'][0]
    return [
        f'*shares of a forward, batch {row["batch"]}, {row["height"]} x {row["width"]}, '
        f'{row["dtype"]}*\n\n{align(cells)}'
    ]


def table(name, networks):
    """Markdown of a result."""
    path = ROOT / f'benchmarks/{name}.json'
    if not path.is_file():
        return 'Not measured yet.'
    content = json.loads(path.read_text())
    make = measured if 'bounds' in content else profiled
    return '\n\n'.join(make(content, networks))


def main():
    content = load(ROOT / 'benchmarks/commands.yml')
    text = PAGE.read_text()
    for name in MARKS.findall(text):
        if name not in content['results']:
            raise cli.UserError(f'{PAGE.name}: commands.yml has no result {name!r}')

    def fill(match):
        name = match[1]
        return f'<!-- {name} -->\n{table(name, content["networks"])}\n<!-- end of {name} -->'

    write_whole(PAGE, MARKS.sub(fill, text))


if __name__ == '__main__':
    cli.run_tool(main)
