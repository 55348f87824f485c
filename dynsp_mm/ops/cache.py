"""A cache of tensors that depend on shapes alone."""

import inspect
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch

from ..compat import is_tracing


def cached_by_shape(
    maxsize: int, varied: str = '', latest: int = 1
) -> Callable[[Callable], Callable]:
    """Decorator that keeps the last results of a function of sizes and a device.

    The tensors of a tracer belong to one trace, and its sizes may be symbols. So nothing is kept
    or looked up while a compiler, an exporter or another dispatch mode is at work.

    Args:
        maxsize: Number of results to keep.
        varied: Name of an optional argument whose values seldom come again.
        latest: Number of results of calls with that to keep: the blocks of a stage ask for the
            same in turns.
    """

    def decorate(function: Callable) -> Callable:
        cached, recent = lru_cache(maxsize)(function), lru_cache(latest)(function)
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if is_tracing():
                return function(*args, **kwargs)
            given = signature.bind(*args, **kwargs).arguments
            chosen = cached if given.get(varied) is None else recent
            # A tensor made in inference mode could not be used in a later training step.
            with torch.inference_mode(False):
                return chosen(*given.values())

        def cache_clear() -> None:
            cached.cache_clear()
            recent.cache_clear()

        call.cache_clear = cache_clear
        return call

    return decorate
