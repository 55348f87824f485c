"""Where the time of a forward goes: to predictors, products, attention, copies, ...

Each operator that torch's profiler sees belongs to one operator class. What operators alone do not
tell, the network marks by named ranges (:mod:`dynsp_mm.ops.ranges`).
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, record_function

from ..errors import UserError
from ..ops import PREDICTOR, WINDOWS
from .latency import synchronizer
from .memory import quiet_profile

# The range of one call of what is profiled.
STEP = 'dynsp_mm step'

# Operator class -> operators, without namespace and the underscore of the form in place.
OPERATORS = {
    'gather and scatter': (
        '_index_put_impl argsort bincount cumsum gather index index_add index_copy index_put '
        'index_select masked_scatter masked_select nonzero nonzero_static scatter scatter_add '
        'searchsorted sort take take_along_dim topk unique'
    ),
    'matrix products': (
        '_addmm_activation _linear_pointwise addbmm addmm addmv baddbmm bmm dot einsum linear '
        'matmul mm mv'
    ),
    'attention': '_softmax scaled_dot_product_attention softmax',
    'convolutions': (
        '_convolution _convolution_pointwise conv1d conv2d conv3d conv_transpose2d convolution'
    ),
    'norms': (
        'batch_norm group_norm instance_norm layer_norm linalg_vector_norm native_batch_norm '
        'native_layer_norm norm rms_norm'
    ),
    'activations': (
        'elu gelu hardsigmoid hardswish hardtanh leaky_relu prelu relu relu6 sigmoid silu tanh'
    ),
    'copies and layout': (
        '_to_copy _unsafe_view alias as_strided cat chunk clone constant_pad_nd contiguous copy '
        'detach empty empty_like expand expand_as fill flatten flip full full_like im2col '
        'lift_fresh masked_fill narrow new_empty new_full new_ones new_zeros ones ones_like pad '
        'permute repeat repeat_interleave reshape roll select slice split split_with_sizes squeeze '
        'stack t tile to transpose unbind unflatten unfold unsqueeze view view_as zero zeros '
        'zeros_like'
    ),
}
# Operators and kernels of other namespaces, such as our Triton kernels: what their names contain.
# A fused one counts as what costs most in it, so the order matters.
FRAGMENTS = dict(
    predictor='predictor',
    attention='attention',
    conv='convolutions',
    linear='matrix products',
    matmul='matrix products',
    mlp='matrix products',
    gather='gather and scatter',
    scatter='gather and scatter',
    select='gather and scatter',
    topk='gather and scatter',
    norm='norms',
    copy='copies and layout',
)
OPERATOR_CLASSES = ('predictor', 'order in windows', *OPERATORS, 'rest', 'between operators')
_CLASS_OF = {name: kind for kind, names in OPERATORS.items() for name in names.split()}


class OperatorTimes(NamedTuple):
    """Where the time of one candidate's forward goes.

    Attributes:
        candidate: Name on the command line.
        batch: Number of images.
        height: Height of each image in pixels.
        width: Width of each image in pixels.
        dtype: Precision, 'float32', 'bf16' or 'fp16'.
        unprofiled_s: Median seconds of the forward without a profiler.
        seconds: Seconds of each operator class, as :func:`time_by_operator_class` returns them.
    """

    candidate: str
    batch: int
    height: int
    width: int
    dtype: str
    unprofiled_s: float
    seconds: dict[str, float]

    @property
    def shares(self) -> dict[str, float]:
        """Share of each operator class in the sum of all."""
        total = sum(self.seconds.values())
        return {kind: seconds / total for kind, seconds in self.seconds.items()}


def class_of(name: str) -> str | None:
    """Class of an operator, a kernel or a named range, by its name; None if it has none."""
    if name == PREDICTOR:
        return 'predictor'
    namespace, _, bare = name.rpartition('::')
    kind = _CLASS_OF.get(bare.rstrip('_'))
    if kind is None and namespace != 'aten':
        kind = next((kind for text, kind in FRAGMENTS.items() if text in bare.lower()), None)
    return kind


def time_by_operator_class(
    step: Callable[[], Any], device: torch.device, rounds: int = 5, warmup: int = 2
) -> dict[str, float]:
    """Seconds that a step spends in each of :data:`OPERATOR_CLASSES`, mean of several steps.

    A token predictor takes the time of everything that its decision runs. What gathers and scatters
    in prepared window attention is 'order in windows', which dense networks need too; the modules
    pad and shift maps instead, by copies. Of the other operators the outermost that has a class
    takes the time of all that it calls: attention that of its products, a product that of a copy it
    needs. 'rest' are operators without a class, mostly additions. 'between operators' is the time
    in which none runs (on an accelerator: no kernel), but Python or the profiler, which slows this
    share down most.

    Kernels of an accelerator belong to the operator that launched them; one launched by none, as
    Triton's may be, goes by its own name, also within a predictor.

    Args:
        step: Function called without arguments, such as ``inference_step`` of a model.
        device: Device on which it runs.
        rounds: Number of profiled steps.
        warmup: Number of steps before them.

    Raises:
        UserError: For fewer than 1 round or a negative warm-up.
    """
    if rounds < 1:
        raise UserError(f'rounds={rounds!r}: must be 1 or more')
    if warmup < 0:
        raise UserError(f'warmup={warmup!r}: must be 0 or more')
    synchronize = synchronizer(device) or (lambda: None)
    for _ in range(warmup):
        step()
    synchronize()
    activities = [ProfilerActivity.CPU]
    if device.type != 'cpu':
        activities.append(getattr(ProfilerActivity, device.type.upper()))
    with quiet_profile(activities=activities) as profiler:
        for _ in range(rounds):
            with record_function(STEP):
                step()
                synchronize()
    sums = sum_by_class(profiler.events(), on_accelerator=device.type != 'cpu')
    return {kind: seconds / rounds for kind, seconds in sums.items()}


def sum_by_class(events: Iterable[Any], on_accelerator: bool) -> dict[str, float]:
    """Seconds of each operator class in all steps of a trace.

    Args:
        events: Events (``FunctionEvent``) of torch's profiler.
        on_accelerator: Whether to sum kernels instead of the CPU's time.
    """
    events = list(events)
    sums = dict.fromkeys(OPERATOR_CLASSES, 0.0)
    launched: dict[str, float] = {}  # kernel -> microseconds that operators account for
    total = 0.0
    for event in events:
        if event.is_async or event.device_type != torch.autograd.DeviceType.CPU:
            continue
        inside, kind = _place(event)
        if not inside:
            continue
        if event.name == STEP:
            total += event.cpu_time_total
        if not on_accelerator:
            sums[kind] += event.self_cpu_time_total
        for kernel in event.kernels if on_accelerator else ():
            launched[kernel.name] = launched.get(kernel.name, 0.0) + kernel.duration
            if kind != 'between operators':
                sums[kind] += kernel.duration
            else:  # launched by Python
                own_kind = class_of(kernel.name) or 'rest'
                if event.name == WINDOWS and own_kind == 'gather and scatter':
                    own_kind = 'order in windows'
                sums[own_kind] += kernel.duration
    if on_accelerator:
        for name, duration in _on_accelerator(events).items():
            sums[class_of(name) or 'rest'] += max(0.0, duration - launched.get(name, 0.0))
        sums['between operators'] = max(0.0, total - sum(sums.values()))
    return {kind: duration * 1e-6 for kind, duration in sums.items()}


def _place(event: Any) -> tuple[bool, str]:
    """Whether an event lies in a step, and the operator class that takes its time."""
    kind = 'between operators' if event.name in (STEP, WINDOWS) else 'rest'
    while event is not None and event.name != STEP:
        if event.name == WINDOWS and kind == 'gather and scatter':
            kind = 'order in windows'
        kind = class_of(event.name) or kind
        event = event.cpu_parent
    return event is not None, kind


def _on_accelerator(events: Iterable[Any]) -> dict[str, float]:
    """Name of each kernel of a trace -> microseconds in all."""
    durations: dict[str, float] = {}
    for event in events:
        # Named ranges appear among the kernels once more.
        if event.device_type != torch.autograd.DeviceType.CPU and event.name not in (
            STEP,
            PREDICTOR,
            WINDOWS,
        ):
            durations[event.name] = durations.get(event.name, 0.0) + event.time_range.elapsed_us()
    return durations
