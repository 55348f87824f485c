import pytest

from dynsp_mm.analysis.growth import Record, keep_ratio, lines, read_records
from dynsp_mm.analysis.measurements import Measurement, to_json

BASE = Measurement(
    'backbone',
    'inference',
    False,
    1,
    64,
    64,
    'float32',
    'net',
    4.0,
    0.25,
    1.0,
    1.0,
    1.0,
    5,
    2_000_000_000,
    1.0,
    3 * 2**20,
)
CPU = dict(cpu='CPU', cores=2, threads=1, accelerator=None)


def records(*changes, machine='CPU, 1 threads'):
    return [Record(BASE._replace(**change), machine) for change in changes]


def test_files(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text(to_json([BASE], hardware=CPU))
    assert read_records(path) == records({})
    path.write_text(to_json([BASE], hardware=dict(CPU, accelerator='GPU')))
    assert read_records(path) == records({}, machine='GPU')


@pytest.mark.parametrize('text', ['', '{}', '[]', '{"rows": []}', '{"rows": [{"part": 1}]}', '1'])
def test_files_of_others(tmp_path, text):
    path = tmp_path / 'a.json'
    path.write_text(text)
    with pytest.raises(ValueError, match='a.json: is no JSON file that benchmark.py wrote: '):
        read_records(path)
    with pytest.raises(ValueError, match='no.json: cannot be read: No such file'):
        read_records(tmp_path / 'no.json')


def test_against_side():
    drawn = lines(
        records(
            dict(height=128, width=128, median_s=1.0),
            dict(candidate='other'),
            {},
            dict(height=32, width=128),
        ),
        'side',
    )
    assert list(drawn) == ['net', 'other']
    assert drawn['net'] == [(64, 250, 3), (64, 250, 3), (128, 1000, 3)]


def test_against_batch():
    """Time is that of an image, memory that of the batch; names have what differs beside it."""
    drawn = lines(
        records(dict(batch=4, peak_bytes=8 * 2**20), {}, dict(dtype='bf16', compiled=True)), 'batch'
    )
    assert drawn == {
        'net, float32, eager': [(1, 250, 3), (4, 62.5, 8)],
        'net, bf16, compiled': [(1, 250, 3)],
    }
    two = records({}, dict(batch=2)) + records({}, machine='GPU')
    assert list(lines(two, 'batch')) == ['net, CPU, 1 threads', 'net, GPU']
    assert list(lines(records(dict(step='training'), dict(batch=2)), 'batch')) == [
        'net, training',
        'net, inference',
    ]
    assert list(lines(records(dict(part='model'), dict(batch=2, height=96)), 'batch')) == [
        'net, model, 64 x 64',
        'net, backbone, 96 x 64',
    ]


@pytest.mark.parametrize(
    'label,ratio',
    [
        ('a.py@sparse=0.7', 0.7),
        ('net@keep_ratios=0.5,0.5,0.5', 0.5),
        ('net@keep_ratios=0.7@x=1', 0.7),
        ('net@sparse=0.9 (2)', 0.9),
        ('net@sparse=1.0,1.0,1.0', 1.0),
        ('net@keep_ratios=0.9,0.5', None),
        ('net@dense', None),
        ('net', None),
        ('net@keep_ratios=None', None),
    ],
)
def test_keep_ratio_of_a_name(label, ratio):
    assert keep_ratio(BASE._replace(candidate=label)) == ratio


def test_against_keep_ratio():
    names = [
        'net',
        'net@sparse=0.9',
        'net@sparse=0.5',
        'net@keep_ratios=0.9,0.9',
        'net@keep_ratios=0.1,0.1',
        'net@keep_ratios=0.9,0.1',
        'net@sparse=0.5@window_size=12',
    ]
    drawn = lines(records(*(dict(candidate=name) for name in names)), 'keep_ratio')
    assert {name: [point.x for point in points] for name, points in drawn.items()} == {
        'net': [None],
        'net@sparse=r': [0.5, 0.9],
        'net@keep_ratios=r,r': [0.1, 0.9],
        'net@keep_ratios=0.9,0.1': [None],
        'net@sparse=r@window_size=12': [0.5],
    }


@pytest.mark.parametrize(
    'rows,against,text',
    [
        (
            [],
            'side',
            'against=side: needs measurements with two or more values of it; there is none',
        ),
        ([{}, dict(batch=2)], 'side', 'there is only 64$'),
        ([{}, dict(height=128)], 'batch', 'there is only 1$'),
        ([{}, dict(candidate='net@sparse=0.7')], 'keep_ratio', 'there is only 0.7$'),
        ([{}, dict(height=128)], 'keep_ratio', 'there is none$'),
    ],
)
def test_nothing_varies(rows, against, text):
    with pytest.raises(ValueError, match=text):
        lines(records(*rows), against)
