import csv
import json

from dynsp_mm.analysis.measurements import Measurement, align, format_table, to_csv, to_json

BASE = Measurement(
    'backbone',
    'inference',
    False,
    2,
    64,
    96,
    'bf16',
    'a,b',
    8.0,
    0.25,
    1.0,
    1.0,
    1.0,
    5,
    2_000_000_000,
    1.0,
    3 * 2**20,
)
ROWS = [
    BASE,
    BASE._replace(
        candidate='longer',
        ratio=0.5,
        ratio_p20=0.4,
        ratio_p80=0.6,
        macs_ratio=None,
        rate_share=0.25,
        held_bytes=2**21,
    ),
]


def test_table():
    header, line, first, second = format_table(ROWS).splitlines()
    assert len({len(row) for row in (header, line, first, second)}) == 1
    cells = [[cell.strip() for cell in row.strip('|').split('|')] for row in (header, first)]
    assert dict(zip(*cells)) == {
        'candidate': 'a,b',
        'images/s': '8.00',
        'median ms': '250.00',
        'GMACs': '2.000',
        'time ratio [p20, p80]': '1.000 [1.000, 1.000]',
        'MACs ratio': '1.000',
        'peak MiB': '3.0',
        'weights MiB': '',
    }
    assert '|  0.500 [0.400, 0.600] |' in second and '|            |' in second
    assert second.endswith('|         2.0 |')


def test_alignment():
    assert align([['a', 'bb'], ['ccc', 'd']]) == '| a   | bb |\n|-----|---:|\n| ccc |  d |'


def test_csv_and_json():
    rows = list(csv.DictReader(to_csv(ROWS).splitlines()))
    assert list(rows[0]) == list(Measurement._fields)
    assert rows[0]['candidate'] == 'a,b' and float(rows[1]['ratio_p80']) == 0.6
    assert rows[0]['compiled'] == 'False' and rows[1]['macs_ratio'] == ''
    assert (rows[0]['rate_share'], rows[1]['rate_share']) == ('', '0.25')
    content = json.loads(to_json(ROWS, command='x'))
    assert content == dict(command='x', rows=[row._asdict() for row in ROWS])
