"""The plots of docs/RESULTS.md."""

import matplotlib
from matplotlib.figure import Figure

from .rows import plot_path, read_results


def plot(dataset, rows):
    """Metric against multiply-adds, a point for each seed, and keep ratios while training."""
    results = read_results(dataset, rows)
    figure = Figure(figsize=(11, 5.6))
    left, right = figure.subplots(1, 2)
    colors = matplotlib.colormaps['tab20']
    for number, (row, runs) in enumerate(results.items()):
        left.scatter(
            [run['macs'] / 1e9 for run in runs],
            [run['value'] for run in runs],
            s=18,
            color=colors(number % 20),
            label=rows[dataset]['rows'][row]['title'],
        )
    left.set(xlabel='GMACs of the backbone', ylabel=rows[dataset]['metric'])
    left.legend(fontsize=6, ncols=2, loc='upper left', bbox_to_anchor=(-0.1, -0.14))
    for run in results.get('sparse_teacher', [])[:1]:
        for k in range(len(run['keep_ratios'])):
            right.plot(
                [line['step'] for line in run['log']],
                [line[f'keep_ratio_{k}'] for line in run['log']],
                label=f'keep_ratio_{k}',
            )
        right.set(xlabel='iteration', ylabel='share of slow positions, sampled', ylim=(0, 1))
        right.legend(fontsize=6)
    figure.suptitle(rows[dataset]['title'])
    figure.tight_layout()
    figure.savefig(plot_path(dataset), dpi=100, metadata=dict(Software=None))
