"""Norms and scales written into the linear layers beside them: the same numbers, fewer passes."""

from torch import Tensor


def fold_norm(
    gain: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Weight and bias of ``y -> W (gain * y + shift) + b``.

    Args:
        gain: Weight (C,) of a layer norm.
        shift: Bias (C,) of the layer norm.
        weight: Weight (C', C) of the linear layer after it.
        bias: Bias (C',) of the linear layer, or None.

    Returns:
        (C', C) and (C',), computed in float64, in the dtype of ``weight``.
    """
    wide = weight.double()
    folded = wide @ shift.double()
    if bias is not None:
        folded = folded + bias.double()
    return (wide * gain.double()).to(weight.dtype), folded.to(weight.dtype)


def fold_scale(
    scale: Tensor | None, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of ``x -> scale * (W x + b)``.

    Args:
        scale: Factors (C',), or None for no scale.
        weight: Weight (C', C) of the linear layer.
        bias: Bias (C',) of the linear layer, or None.
    """
    if scale is None:
        return weight, bias
    return weight * scale[:, None], None if bias is None else bias * scale


def pieces(length: int, size: int | None) -> tuple[slice, ...]:
    """Slices that cover ``length``, nearly equal, each at most ``size``; one if that is None.

    A length of 0 has none.
    """
    count = -(-length // (size or max(length, 1)))
    ends = [length * i // count for i in range(count + 1)] if count else []
    return tuple(slice(first, last) for first, last in zip(ends, ends[1:]))
