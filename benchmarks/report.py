"""Writes the tables of docs/PERFORMANCE.md and docs/RESULTS.md from the recorded results.

    python -m benchmarks.report                # both pages
    python -m benchmarks.report performance    # one of them
    python -m benchmarks.report results        # the other, and its plots

A table stands between ``<!-- NAME -->`` and ``<!-- end of NAME -->``. In docs/PERFORMANCE.md NAME
is a result of speed/commands.yml, in docs/RESULTS.md a set of accuracy/rows.yml. Nothing else
writes between these marks.
"""

import argparse
import re
from pathlib import Path

from dynsp_mm.files import write_whole
from dynsp_mm.tooling import options as cli
from dynsp_mm.tooling import runs

from .accuracy import plots, rows
from .accuracy import tables as accuracy
from .speed import run as speed_run
from .speed import tables as speed

DOCS = Path(__file__).resolve().parents[1] / 'docs'
FIRST, LAST = '<!-- {} -->', '<!-- end of {} -->'


def fill(page, known, make, required=()):
    """Writes a table between each pair of marks of a page, whole or not at all.

    Args:
        page (Path): Markdown file.
        known (Container[str]): Names that tables have.
        make (Callable[[str], str]): Function from a name to the Markdown of its table.
        required (Iterable[str]): Names whose marks the page must have.

    Raises:
        UserError: The page has marks of an unknown name, lacks those of a required one, or has one
            of a pair more or less than once.
    """
    text = page.read_text()
    names = re.findall(f'^{FIRST.format("([^ ]+)")}$', text, re.MULTILINE)
    for name in dict.fromkeys([*required, *names]):
        first, last = FIRST.format(name), LAST.format(name)
        if name not in known:
            raise cli.UserError(
                f'{page.name}: {first} names no table; must be one of {", ".join(known)}'
            )
        if text.count(first) != 1 or text.count(last) != 1:
            raise cli.UserError(f'{page}: needs the marks {first} and {last}, each once')
        before, rest = text.split(first)
        if last not in rest:
            raise cli.UserError(f'{page}: {last} must come after {first}')
        text = f'{before}{first}\n{make(name)}\n{last}{rest.split(last)[1]}'
    write_whole(page, text)


def report_performance():
    """Writes the tables of docs/PERFORMANCE.md."""
    content = speed_run.read_content()
    fill(
        DOCS / 'PERFORMANCE.md',
        content['results'],
        lambda name: speed.table(name, content['networks']),
    )


def report_results():
    """Writes the tables of docs/RESULTS.md, and the plots."""
    sets = rows.read_rows()
    fill(DOCS / 'RESULTS.md', sets, lambda name: accuracy.table(name, sets), required=sets)
    for dataset in sets:
        if rows.read_results(dataset, sets):
            plots.plot(dataset, sets)


PAGES = dict(performance=report_performance, results=report_results)


def main():
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.report',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('page', nargs='?', choices=PAGES, help='default: both')
    page = parser.parse_args().page
    for write in PAGES.values() if page is None else [PAGES[page]]:
        write()


if __name__ == '__main__':
    runs.run_tool(main)
