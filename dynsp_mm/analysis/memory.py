"""Peak memory of a forward pass."""
import os
import warnings

import torch
import torch.nn as nn
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


@torch.inference_mode()
def peak_memory(module: nn.Module, *inputs: Tensor) -> int:
    """Most bytes that a forward pass in eval mode holds at a time, beyond weights and inputs.

    Counts what torch allocates, including buffers inside operators. A first pass, not counted,
    fills caches such as masks.

    Args:
        module: Put into eval mode, then back.
        inputs: On one device, where the module is.

    Returns:
        Bytes, the outputs included.
    """
    training = module.training
    module.eval()
    try:
        module(*inputs)
        if inputs[0].is_cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            module(*inputs)
            return torch.cuda.max_memory_allocated() - before
        # Where there is no GPU the profiler reports that as an error.
        os.environ.setdefault('KINETO_LOG_LEVEL', '5')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the profiler's options, which do not concern us
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
                outputs = module(*inputs)  # held until the count ends
        del outputs
    finally:
        module.train(training)
    held = peak = 0
    # Allocations (positive) and releases in the order in which they happened.
    for event in profiler.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak
