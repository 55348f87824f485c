"""A cache of tensors that depend on shapes alone."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch

from ..compat import is_tracing


def cached_by_shape(maxsize: int) -> Callable[[Callable], Callable]:
    """Decorator that keeps the last results of a function of sizes and a device.

    The tensors of a tracer belong to one trace, and its sizes may be symbols. So nothing is kept
    or looked up while a compiler, an exporter or another dispatch mode is at work.

    Args:
        maxsize: Number of results to keep.
    """

    def decorate(function: Callable) -> Callable:
        cached = lru_cache(maxsize)(function)

        @wraps(function)
        def call(*args: Any) -> Any:
            if is_tracing():
                return function(*args)
            # A tensor made in inference mode could not be used in a later training step.
            with torch.inference_mode(False):
                return cached(*args)

        call.cache_clear = cached.cache_clear
        return call

    return decorate
