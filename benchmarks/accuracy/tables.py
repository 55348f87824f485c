"""The tables of docs/RESULTS.md: means over seeds, their intervals, costs and realised ratios."""

import statistics

from scipy import stats

from .rows import read_results, read_timing


def interval(values):
    """Half the width of the 95 % confidence interval of a mean, by Student's t."""
    t = stats.t.ppf(0.975, len(values) - 1)
    return t * statistics.stdev(values) / len(values) ** 0.5


def cells(results, dense, timing):
    """Cells of a row's results: seeds, value, gain, GMACs, time ratio, realised keep ratios.

    Args:
        results (list[dict]): Results of the row, one for each seed.
        dense (list[dict] | None): Results of the dense row.
        timing (dict | None): Time ratios of the row's backbone.
    """
    values = [result['value'] for result in results]
    mean = statistics.mean(values)
    value = f'{mean:.2f}' + (f' ± {interval(values):.2f}' if len(values) > 1 else '')
    macs = statistics.mean(result['macs'] for result in results)
    gain = ratio = clock = ''
    if dense:
        gain = f'{mean - statistics.mean(result["value"] for result in dense):+.2f}'
        ratio = f' ({macs / dense[0]["macs"]:.3f})'
    if timing:
        clock = f'{timing["ratio"]:.3f} ({timing["ratio_p20"]:.3f} to {timing["ratio_p80"]:.3f})'
    shares = map(statistics.mean, zip(*(result['keep_ratios'] for result in results)))
    return [
        len(values),
        value,
        gain,
        f'{macs / 1e9:.3f}{ratio}',
        clock,
        ' / '.join(f'{share:.3f}' for share in shares),
    ]


def table(dataset, rows):
    """Markdown of a set's table."""
    spec, results, timing = rows[dataset], read_results(dataset, rows), read_timing(dataset)
    lines = [
        f'| row | seeds | {spec["metric"]} (95 % interval) | against dense | GMACs (ratio) | '
        'time ratio (20 to 80 %) | realised keep ratios | command |',
        '|---' * 8 + '|',
    ]
    for row, described in spec['rows'].items():
        if row in results:
            own = [
                *cells(results[row], results.get('dense'), timing.get(row)),
                f'`run {dataset}/{row}`',
            ]
        else:
            own = [0, 'not run yet', '', '', '', '', '']
        lines.append('| ' + ' | '.join(map(str, [described['title'], *own])) + ' |')
    return '\n'.join(lines)
