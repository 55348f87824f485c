r"""Plots time per image and peak memory against what grows, from JSON files of benchmark.py.

    python tools/analysis_tools/plot_benchmark.py benchmarks/speed/growth-side-swin-s.json \
        --out side.png
    python tools/analysis_tools/plot_benchmark.py a.json b.json --against batch --out batch.png
    python tools/analysis_tools/plot_benchmark.py a.json --against keep_ratio --out ratio.png

A line is a candidate in one setting. Against keep ratio, NAME@sparse=R with several R are a line,
as are NAME@keep_ratios=R,R,R; networks without a keep ratio are dashed.
"""

import argparse
from pathlib import Path

from ...analysis.growth import AXES, lines, read_records
from ...errors import UserError
from ..options import check_output


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('files', nargs='+', type=Path, metavar='FILE.json')
    add('--out', type=Path, required=True, metavar='PNG', help='or another format of matplotlib')
    add('--against', choices=list(AXES), default='side', help='default: side')
    add(
        '--name',
        action='append',
        default=[],
        metavar='TEXT=CANDIDATE',
        help='what the plot calls a network, whatever changes of it follow; may be repeated',
    )
    return parser.parse_args(argv)


def rename(drawn, names):
    """Lines by the names that ``--name`` gives them."""
    for name in names:
        if not all(name.partition('=')):
            raise UserError(f'--name {name}: must be TEXT=CANDIDATE')
    # One network may begin as another does.
    pairs = sorted((name.split('=', 1) for name in names), key=lambda pair: -len(pair[1]))

    def short(line):
        text, long = next((pair for pair in pairs if line.startswith(pair[1])), ('', ''))
        return text + line[len(long) :]

    renamed = {short(line): points for line, points in drawn.items()}
    if len(renamed) < len(drawn):
        raise UserError('--name: two lines would have the same name')
    return renamed


def draw(drawn, axis, path):
    """Two panels, time and memory, one line for each name."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5))
    if path.suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
        pyplot.close(figure)
        raise UserError(f'--out {path}: must end as a picture does, such as .png or .pdf')
    ticks = sorted(
        {point.x for points in drawn.values() for point in points if point.x is not None}
    )
    for panel, (quantity, label) in zip(
        panels, (('milliseconds', 'ms per image'), ('mebibytes', 'peak memory, MiB'))
    ):
        for number, (name, points) in enumerate(drawn.items()):
            values = [getattr(point, quantity) for point in points]
            style = dict(label=name, color=f'C{number % 10}')
            if points[0].x is None:
                panel.hlines(values, ticks[0], ticks[-1], linestyle='--', **style)
            else:
                panel.plot(
                    [point.x for point in points],
                    values,
                    markersize=4,
                    marker='os^vD'[number // 10 % 5],
                    **style,
                )
        panel.set(xlabel=axis.label, ylabel=label)
        if axis.log:
            panel.set(xscale='log', yscale='log')
        else:
            panel.set_ylim(bottom=0)
        panel.xaxis.set_minor_locator(pyplot.NullLocator())
        panel.set_xticks(ticks, [f'{tick:.4g}' for tick in ticks], fontsize=7, rotation=45)
        panel.grid(alpha=0.3)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc='upper center',
        fontsize=7,
        bbox_to_anchor=(0.5, 0),
    )
    figure.tight_layout()
    figure.savefig(path, dpi=100, bbox_inches='tight')
    pyplot.close(figure)


def main(argv=None):
    args = parse_args(argv)
    check_output('--out', args.out)
    records = [record for path in args.files for record in read_records(path)]
    draw(rename(lines(records, args.against), args.name), AXES[args.against], args.out)
