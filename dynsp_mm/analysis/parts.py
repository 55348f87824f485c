"""Where the time of a forward goes: to predictors, products, attention, copies, ..."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch.profiler import ProfilerActivity, record_function

from ..prepared import FoldedWindowAttention
from ..sparsity import TokenPredictor
from .latency import synchronizer
from .memory import quiet_profile

# Ranges that are marked in the trace.
STEP, PREDICTOR, WINDOWS = 'dynsp_mm step', 'dynsp_mm predictor', 'dynsp_mm windows'

# Part -> operators, without namespace and the underscore of the form in place.
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
PARTS = ('predictor', 'order in windows', *OPERATORS, 'rest', 'between operators')
_PART_OF = {name: part for part, names in OPERATORS.items() for name in names.split()}


class PartTimes(NamedTuple):
    """Where the time of one candidate's forward goes.

    Attributes:
        candidate: As named on the command line.
        batch: Number of images.
        height: Of each, in pixels.
        width: Of each, in pixels.
        dtype: 'float32', 'bf16' or 'fp16'.
        unprofiled_s: Median seconds of the forward without a profiler.
        seconds: Of each part, as :func:`time_by_part` returns them.
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
        """Of each part in the sum of all."""
        total = sum(self.seconds.values())
        return {part: seconds / total for part, seconds in self.seconds.items()}


def part_of(name: str) -> str | None:
    """Part of an operator, a kernel or a marked range, by its name; None if it has none."""
    if name == PREDICTOR:
        return 'predictor'
    namespace, _, bare = name.rpartition('::')
    part = _PART_OF.get(bare.rstrip('_'))
    if part is None and namespace != 'aten':
        part = next((part for text, part in FRAGMENTS.items() if text in bare.lower()), None)
    return part


def time_by_part(
    step: Callable[[], Any],
    model: nn.Module,
    device: torch.device,
    rounds: int = 5,
    warmup: int = 2,
) -> dict[str, float]:
    """Seconds that a step spends in each part of :data:`PARTS`, mean of several.

    A token predictor takes the time of everything that its forward runs. What gathers and scatters
    in prepared window attention is 'order in windows', which dense networks need too; the modules
    pad and shift maps instead, by copies. Of the other operators
    the outermost that has a part takes the time of all that it calls: attention that of its
    products, a product that of a copy it needs. 'rest' are operators without a part, mostly
    additions. 'between operators' is the time in which none runs (on an accelerator: no kernel),
    but Python or the profiler, which slows this share down most.

    Kernels of an accelerator belong to the operator that launched them; one launched by none, as
    Triton's may be, goes by its own name, also within a predictor.

    Args:
        step: Called without arguments, such as ``inference_step`` of the model.
        model: Whose token predictors are watched.
        device: Where it runs.
        rounds: Profiled steps.
        warmup: Steps before them.

    Raises:
        ValueError: For fewer than 1 round or a negative warm-up.
    """
    if rounds < 1:
        raise ValueError(f'rounds={rounds!r}: must be 1 or more')
    if warmup < 0:
        raise ValueError(f'warmup={warmup!r}: must be 0 or more')
    synchronize = synchronizer(device) or (lambda: None)
    for _ in range(warmup):
        step()
    synchronize()
    activities = [ProfilerActivity.CPU]
    if device.type != 'cpu':
        activities.append(getattr(ProfilerActivity, device.type.upper()))
    with _marked(model), quiet_profile(activities=activities) as profiler:
        for _ in range(rounds):
            with record_function(STEP):
                step()
                synchronize()
    sums = sum_by_part(profiler.events(), on_accelerator=device.type != 'cpu')
    return {part: seconds / rounds for part, seconds in sums.items()}


@contextmanager
def _marked(model: nn.Module) -> Iterator[None]:
    """Marks the forwards of token predictors and of prepared window attention in the trace."""
    ranges = []  # a stack: one opens while none of the same module is closed

    def start(module: nn.Module, args: tuple) -> None:
        ranges.append(record_function(PREDICTOR))
        ranges[-1].__enter__()

    def finish(module: nn.Module, args: tuple, output: Any) -> None:
        ranges.pop().__exit__(None, None, None)

    attend = FoldedWindowAttention.add_

    def add_(self, *args) -> None:
        with record_function(WINDOWS):
            attend(self, *args)

    FoldedWindowAttention.add_ = add_  # forms have no hooks
    handles = []
    for module in model.modules():
        if isinstance(module, TokenPredictor):
            handles += [
                module.register_forward_pre_hook(start),
                module.register_forward_hook(finish, always_call=True),
            ]
    try:
        yield
    finally:
        FoldedWindowAttention.add_ = attend
        for handle in handles:
            handle.remove()


def sum_by_part(events: Iterable[Any], on_accelerator: bool) -> dict[str, float]:
    """Seconds by part of all steps of a trace.

    Args:
        events: ``FunctionEvent`` of torch's profiler.
        on_accelerator: Whether to sum kernels instead of the CPU's time.
    """
    events = list(events)
    sums = dict.fromkeys(PARTS, 0.0)
    launched: dict[str, float] = {}  # kernel -> microseconds that operators account for
    total = 0.0
    for event in events:
        if event.is_async or event.device_type != torch.autograd.DeviceType.CPU:
            continue
        inside, part = _place(event)
        if not inside:
            continue
        if event.name == STEP:
            total += event.cpu_time_total
        if not on_accelerator:
            sums[part] += event.self_cpu_time_total
        for kernel in event.kernels if on_accelerator else ():
            launched[kernel.name] = launched.get(kernel.name, 0.0) + kernel.duration
            if part == 'between operators':  # launched by Python
                part_of_kernel = part_of(kernel.name) or 'rest'
                if event.name == WINDOWS and part_of_kernel == 'gather and scatter':
                    part_of_kernel = 'order in windows'
                sums[part_of_kernel] += kernel.duration
            else:
                sums[part] += kernel.duration
    if on_accelerator:
        for name, duration in _on_accelerator(events).items():
            sums[part_of(name) or 'rest'] += max(0.0, duration - launched.get(name, 0.0))
        sums['between operators'] = max(0.0, total - sum(sums.values()))
    return {part: duration * 1e-6 for part, duration in sums.items()}


def _place(event: Any) -> tuple[bool, str]:
    """Whether an event lies in a step, and the part that takes its time."""
    part = 'between operators' if event.name in (STEP, WINDOWS) else 'rest'
    while event is not None and event.name != STEP:
        if event.name == WINDOWS and part == 'gather and scatter':
            part = 'order in windows'
        part = part_of(event.name) or part
        event = event.cpu_parent
    return event is not None, part


def _on_accelerator(events: Iterable[Any]) -> dict[str, float]:
    """Kernel -> microseconds, of all in a trace."""
    durations: dict[str, float] = {}
    for event in events:
        # Marked ranges appear among the kernels once more.
        if event.device_type != torch.autograd.DeviceType.CPU and event.name not in (
            STEP,
            PREDICTOR,
            WINDOWS,
        ):
            durations[event.name] = durations.get(event.name, 0.0) + event.time_range.elapsed_us()
    return durations
