"""Names in a profiler's trace for what operators alone do not tell."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.profiler import record_function

from ..compat import is_compiling

#: Everything that decides which positions do less: scores and selection.
PREDICTOR = 'dynsp_mm predictor'
#: Prepared window attention, whose gathering and scattering is its order in windows.
WINDOWS = 'dynsp_mm windows'


def named_range(name: str) -> AbstractContextManager:
    """A context that marks what runs in it in the trace of torch's profiler.

    It does nothing where no profiler runs, and nothing in what is compiled, traced or exported.

    Args:
        name: Name of the range, such as :data:`PREDICTOR`.
    """
    if is_compiling() or not torch.autograd._profiler_enabled():
        return nullcontext()
    return record_function(name)
