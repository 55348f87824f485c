"""Memory of a network and of its forward pass."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ..prepared import Preparable


@torch.inference_mode()
def peak_memory(module: nn.Module, *inputs: Tensor) -> int:
    """Most bytes that a forward pass in eval mode holds at a time, beyond weights and inputs.

    Counts what torch allocates, including buffers inside operators. A first pass, not counted,
    fills caches such as masks.

    Args:
        module: Module that is put into eval mode, then back.
        *inputs: Arguments of its call, on its device.

    Returns:
        Number of bytes, the outputs included.
    """
    training = module.training
    module.eval()
    try:
        return peak_memory_of(lambda: module(*inputs), inputs[0].device)
    finally:
        module.train(training)


def peak_memory_of(call: Callable[[], Any], device: torch.device) -> int:
    """Most bytes that a call holds at a time, beyond what is held before it.

    Args:
        call: Function that is run twice, the second time counted.
        device: Device on which it allocates: the CPU, or an accelerator whose torch module reports
            its memory as torch.cuda does.

    Returns:
        Number of bytes, what the call returns included.
    """
    call()
    if device.type != 'cpu':
        accelerator = getattr(torch, device.type)
        accelerator.reset_peak_memory_stats(device)
        before = accelerator.memory_allocated(device)
        call()
        return accelerator.max_memory_allocated(device) - before
    with quiet_profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        outputs = call()  # held until the count ends
    del outputs
    held = peak = 0
    # Allocations (positive) and releases in the order in which they happened.
    for event in profiler.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def held_memory(model: nn.Module) -> int:
    """Bytes of parameters, buffers and what ``prepare_for_inference`` made of them.

    Tensors that share their memory count once.
    """
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        if isinstance(module, Preparable):
            tensors += module.prepared_tensors()
    sizes: dict[Any, int] = {}
    for tensor in tensors:
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        else:  # oneDNN's tensors show no memory
            sizes[id(tensor)] = tensor.numel() * tensor.element_size()
    return sum(sizes.values())


@contextmanager
def quiet_profile(**options: Any) -> Iterator[profile]:
    """``torch.profiler.profile`` without what it says about itself."""
    # Where there is no GPU it reports that as an error.
    os.environ.setdefault('KINETO_LOG_LEVEL', '5')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of its options, which do not concern us
        with profile(**options) as profiler:
            yield profiler
