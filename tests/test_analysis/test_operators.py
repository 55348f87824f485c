"""Which class takes which operator's time: on real traces by name, on written ones by duration."""

import json
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import MODELS
from torch.autograd import DeviceType
from torch.profiler import record_function
from toys import SWIN

from dynsp_mm import DynamicConvNeXt
from dynsp_mm.analysis import OPERATOR_CLASSES, operators, time_by_operator_class
from dynsp_mm.ops import ranges
from dynsp_mm.sparsity import TokenPredictor

CPU = torch.device('cpu')
Kernel = namedtuple('Kernel', 'name duration')


@pytest.mark.parametrize(
    'name,kind',
    [
        ('aten::index_add_', 'gather and scatter'),
        ('aten::topk', 'gather and scatter'),
        ('aten::addmm', 'matrix products'),
        ('mkldnn::_linear_pointwise', 'matrix products'),
        ('aten::scaled_dot_product_attention', 'attention'),
        ('aten::conv2d', 'convolutions'),
        ('aten::layer_norm', 'norms'),
        ('aten::gelu', 'activations'),
        ('aten::copy_', 'copies and layout'),
        ('aten::roll', 'copies and layout'),
        ('aten::_softmax', 'attention'),
        (operators.PREDICTOR, 'predictor'),
        ('aten::add', None),
        ('gather_rows_kernel', 'gather and scatter'),
        ('dynsp_mm::sparse_mlp', 'matrix products'),
        ('dynsp_mm::gather_linear', 'matrix products'),
        ('aten::conv_of_no_class', None),
        ('ours', None),
    ],
)
def test_class_of_an_operator(name, kind):
    assert operators.class_of(name) == kind


def test_no_operator_has_two_classes():
    names = [name for group in operators.OPERATORS.values() for name in group.split()]
    assert len(names) == len(set(names)) and not any(name.endswith('_') for name in names)
    assert set(operators.FRAGMENTS.values()) <= set(OPERATOR_CLASSES)


def event(name, own, *children, kernels=(), device=DeviceType.CPU, is_async=False):
    """An event that takes ``own`` microseconds itself and those of its children."""
    made = SimpleNamespace(
        name=name,
        self_cpu_time_total=own,
        kernels=kernels,
        is_async=is_async,
        device_type=device,
        cpu_parent=None,
        children=children,
        time_range=SimpleNamespace(elapsed_us=lambda: own),
    )
    made.cpu_time_total = own + sum(child.cpu_time_total for child in children)
    for child in children:
        child.cpu_parent = made
    return made


def flat(*events):
    return [inner for made in events for inner in (made, *flat(*made.children))]


def summed(events, on_accelerator=False):
    return {
        kind: round(seconds * 1e6, 6)
        for kind, seconds in operators.sum_by_class(events, on_accelerator).items()
        if seconds
    }


def test_the_outermost_class_takes_all_below():
    trace = flat(
        event('aten::addmm', 1000),  # before the step
        event(
            operators.STEP,
            1,
            event(
                operators.PREDICTOR,
                2,
                event('aten::linear', 4, event('aten::addmm', 8)),
                event('aten::add', 16),
            ),
            event('aten::scaled_dot_product_attention', 32, event('aten::bmm', 64)),
            event(
                operators.WINDOWS,
                3,
                event('aten::index_select', 8192),
                event('aten::linear', 128, event('aten::index_select', 256)),
            ),
            event('aten::index_select', 16384),
            event('aten::linear', 128, event('aten::copy_', 256), event('aten::empty', 512)),
            event('aten::add', 1024),
            event('ours', 2048, event('aten::gelu', 4096)),
            event('aten::mm', 1, is_async=True),
        ),
    )
    assert summed(trace) == {
        'predictor': 2 + 4 + 8 + 16,
        'attention': 32 + 64,
        'matrix products': (128 + 256) + (128 + 256 + 512),
        'order in windows': 8192,
        'gather and scatter': 16384,
        'rest': 1024 + 2048,
        'activations': 4096,
        'between operators': 1 + 3,
    }


def test_on_an_accelerator_kernels_count():
    """Those of operators, those that Python launched, and the time without any."""
    device = dict(device=DeviceType.CUDA)
    trace = flat(
        event(
            operators.STEP,
            900,
            event(
                operators.PREDICTOR,
                5,
                event('aten::linear', 5, event('aten::addmm', 5, kernels=[Kernel('gemm', 10)])),
            ),
            event('aten::linear', 5, event('aten::addmm', 5, kernels=[Kernel('gemm', 20)])),
            event('aten::add', 5, kernels=[Kernel('vectorized', 40)]),
            event(
                operators.WINDOWS,
                5,
                event('aten::index_select', 5, kernels=[Kernel('rows', 9)]),
                kernels=[Kernel('gather_kernel', 11), Kernel('bias_gelu_kernel', 1)],
            ),
            kernels=[Kernel('scatter_kernel', 80), Kernel('other', 3)],
        ),
        event('gemm', 10, **device),
        event('gemm', 20, **device),
        event('vectorized', 40, **device),
        event('scatter_kernel', 80, **device),
        event('other', 3, **device),
        event('rows', 9, **device),
        event('gather_kernel', 11, **device),
        event('bias_gelu_kernel', 1, **device),
        event('gather_rows', 160, **device),
        event('unknown', 7, **device),  # of no operator
        event(operators.STEP, 400, **device),
        event(operators.PREDICTOR, 300, **device),
        event(operators.WINDOWS, 200, **device),
    )
    busy = {
        'predictor': 10,
        'matrix products': 20,
        'rest': 40 + 3 + 7 + 1,
        'order in windows': 9 + 11,
        'gather and scatter': 80 + 160,
    }
    assert summed(trace, True) == {**busy, 'between operators': 940 - sum(busy.values())}


def test_a_real_step():
    """All classes that a sparse network has take time, and all steps are counted."""
    model = MODELS.build(SWIN).eval()
    calls = []
    image = torch.randn(1, 3, 64, 64)

    def step():
        calls.append(torch.is_inference_mode_enabled())
        with torch.inference_mode():
            model(image)

    seconds = time_by_operator_class(step, CPU, rounds=2, warmup=1)
    assert len(calls) == 3 and tuple(seconds) == OPERATOR_CLASSES
    assert {kind for kind, value in seconds.items() if not value > 0} == {'order in windows'}


def test_what_prepared_attention_gathers_is_the_order_in_windows():
    model = MODELS.build(SWIN).prepare_for_inference()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        seconds = time_by_operator_class(lambda: model(image), CPU, rounds=1)
        dense = MODELS.build({**SWIN, 'keep_ratios': None}).prepare_for_inference()
        of_dense = time_by_operator_class(lambda: dense(image), CPU, rounds=1)
    assert min(seconds['order in windows'], seconds['gather and scatter']) > 0
    assert of_dense['order in windows'] > 0 and of_dense['gather and scatter'] == 0


def test_what_predictors_run_counts_as_theirs(monkeypatch):
    """No selection is left for other classes; a dense network has no predictor's time."""
    model = DynamicConvNeXt('atto', keep_ratios=0.7).eval()
    image = torch.randn(1, 3, 64, 64)
    traces = []
    sum_by_class = operators.sum_by_class
    monkeypatch.setattr(
        operators,
        'sum_by_class',
        lambda events, on_accelerator: (
            traces.append(list(events)) or sum_by_class(events, on_accelerator)
        ),
    )
    with torch.inference_mode():
        time_by_operator_class(lambda: model(image), CPU, rounds=1, warmup=0)
        model.keep_ratios = None
        dense = DynamicConvNeXt('atto').eval()
        assert time_by_operator_class(lambda: dense(image), CPU, 1, 0)['predictor'] == 0
    placed = [(made.name, *operators._place(made)) for made in traces[0]]
    # Of the head, of the choice, and of the numbers of what was chosen.
    for operator in ('log_softmax', 'nan_to_num', 'sort', 'arange'):
        assert {
            kind for name, inside, kind in placed if name == f'aten::{operator}' and inside
        } == {'predictor'}, operator
    assert not [name for name, _, _ in placed if name == 'aten::nonzero']  # a fixed budget
    for operator in ('index_select', 'index_copy_'):
        assert {
            kind for name, inside, kind in placed if name == f'aten::{operator}' and inside
        } == {'gather and scatter'}, operator


def test_the_mean_of_all_rounds(monkeypatch):
    monkeypatch.setattr(operators, 'sum_by_class', lambda events, on_accelerator: dict(rest=6.0))
    assert time_by_operator_class(lambda: None, CPU, rounds=3) == dict(rest=2.0)


def test_an_error_in_a_predictor_leaves_nothing_open(monkeypatch):
    model = MODELS.build(SWIN).eval()
    entered, left = [], []

    class Range(record_function):
        def __enter__(self):
            entered.append(self.name)
            return super().__enter__()

        def __exit__(self, *error):
            left.append(self.name)
            return super().__exit__(*error)

    monkeypatch.setattr(operators, 'record_function', Range)
    monkeypatch.setattr(ranges, 'record_function', Range)

    def fail(*args):
        raise ArithmeticError

    monkeypatch.setattr(TokenPredictor, 'log_probs', fail)
    with pytest.raises(ArithmeticError):
        time_by_operator_class(lambda: model(torch.zeros(1, 3, 64, 64)), CPU, rounds=1, warmup=0)
    assert entered == [operators.STEP, ranges.PREDICTOR] and left == entered[::-1]


def test_recorded_profiles_have_these_classes():
    """What was measured before is read under the same names."""
    recorded = list((Path(__file__).parents[2] / 'benchmarks').rglob('profile-*.json'))
    assert recorded
    for path in recorded:
        for row in json.loads(path.read_text())['rows']:
            assert list(row['seconds']) == list(OPERATOR_CLASSES)
            assert set(operators.OperatorTimes(**row).shares) == set(OPERATOR_CLASSES)


def test_shares():
    times = operators.OperatorTimes('a', 1, 64, 64, 'bf16', 0.5, dict(rest=0.3, norms=0.1))
    assert times.shares == pytest.approx(dict(rest=0.75, norms=0.25))


@pytest.mark.parametrize(
    'kwargs,text',
    [
        (dict(rounds=0), 'rounds=0: must be 1 or more'),
        (dict(warmup=-1), 'warmup=-1: must be 0 or more'),
    ],
)
def test_mistakes(kwargs, text):
    with pytest.raises(ValueError, match=text):
        time_by_operator_class(lambda: None, CPU, **kwargs)
