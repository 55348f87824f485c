"""Does the swap of a config's backbone do what is promised?

For a backbone alone (:func:`check_backbone`): the dense weights load with nothing but the sparse
tensors missing, the swapped network computes what the dense one does, and it runs sparse. For a
whole model (:func:`check_model`): it trains a step.
"""

from typing import Any

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import set_random_seed
from torch import Tensor

from ..configuration import sparsify, without_pretrained
from ..configuration.places import to_swap
from ..recording import record_decisions
from ..training import SpatialSparsityHook
from ..training.new_parameters import is_new, new_parameters
from .harness import SIZE, build, build_model, dummy_batch, input_size, load_library

KEEP_RATIO = 0.7
TOLERANCE = 1e-5  # of the largest value of a map


class SwapError(Exception):
    """A promise that a swap breaks."""


# ---------------------------------------------------------------------- backbone
def check_backbone(cfg: Config, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Builds the dense backbone of a config and its sparse counterpart and compares them.

    All weights are random, layer scales and response norms too, which start near zero.

    Args:
        cfg: Config of a dense model; it is not changed.
        size: Height and width of the image in pixels; None takes the config's own.

    Returns:
        ``size``; ``tensors`` of the dense state dict; number of ``new``, sparse tensors;
        ``error``, the largest deviation from the dense outputs relative to their largest value;
        ``keep_ratios`` that were realised.

    Raises:
        SwapError: If a promise is broken.
        UserError: If the backbone cannot be swapped.
    """
    size = size or input_size(cfg)
    dense_cfg = without_pretrained(to_swap(cfg).alone)
    sparse_cfg = sparse_backbone(cfg)
    load_library(cfg)
    set_random_seed(0)
    dense = build(dense_cfg)
    dense.eval()  # returns None in some of the libraries' classes
    randomise(dense)
    weights = dense.state_dict()
    image = torch.randn(1, dense_cfg.get('in_channels', 3), *size)
    with torch.no_grad():
        expected = dense(image)
    del dense

    error = _check_same(build(dict(sparse_cfg, keep_ratios=None)), weights, image, expected)
    new, ratios = _check_sparse(build(sparse_cfg), weights, image, expected)
    return dict(size=tuple(size), tensors=len(weights), new=new, error=error, keep_ratios=ratios)


def _check_same(
    backbone: nn.Module, weights: dict[str, Tensor], image: Tensor, expected: tuple[Tensor, ...]
) -> float:
    """Checks that a swapped backbone at dense ratios computes the same; returns the error."""
    backbone.eval()
    load_dense(backbone, weights)
    with torch.no_grad():
        error = max_error(backbone(image), expected)
    if not error <= TOLERANCE:
        raise SwapError(
            'with keep_ratios=None the outputs differ from the dense ones by '
            f'{error:.1e} of their largest value'
        )
    return error


def _check_sparse(
    backbone: nn.Module, weights: dict[str, Tensor], image: Tensor, expected: tuple[Tensor, ...]
) -> tuple[int, list[float]]:
    """Checks that a sparse backbone runs sparse; returns its new tensors and realised ratios."""
    backbone.eval()
    new = load_dense(backbone, weights)
    if not new:
        raise SwapError('the sparse backbone has no new parameters')
    with torch.no_grad(), record_decisions(backbone) as log:
        outs = backbone(image)
    _check_shapes('sparse outputs', outs, expected)
    if not all(out.isfinite().all() for out in outs):
        raise SwapError('sparse outputs are not finite')
    if len(log.decisions) != len(backbone.keep_ratios):
        raise SwapError(
            f'{len(log.decisions)} decisions for {len(backbone.keep_ratios)} predictors'
        )
    for decision in log.decisions:
        count = decision.hw[0] * decision.hw[1]
        if decision.keep.sum().item() != int(count * decision.target):
            raise SwapError(
                f'{decision.keep.sum().item()} of {count} positions are slow, the keep '
                f'ratio is {decision.target}'
            )
    return new, [decision.keep_ratio.item() for decision in log.decisions]


def _check_shapes(what: str, got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    if [out.shape for out in got] != [out.shape for out in expected]:
        raise SwapError(
            f'{what} have shapes {[tuple(out.shape) for out in got]}, dense ones '
            f'{[tuple(out.shape) for out in expected]}'
        )


def sparse_backbone(cfg: Config) -> dict[str, Any]:
    """The backbone after the swap, without pretrained weights; ``cfg`` is not changed."""
    cfg = Config(cfg.to_dict(), filename=cfg.filename)
    sparsify(cfg, KEEP_RATIO)
    return without_pretrained(to_swap(cfg).alone)


def randomise(model: nn.Module) -> None:
    """Moves every parameter by noise, so that none hides a difference behind a zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)


def load_dense(model: nn.Module, weights: dict[str, Tensor]) -> int:
    """Loads a dense state dict; returns how many sparse tensors it leaves new.

    Raises:
        SwapError: If other names are missing, or any is left over.
    """
    missing, unexpected = model.load_state_dict(weights, strict=False)
    lost = [name for name in missing if not is_new(name)]
    if lost or unexpected:
        raise SwapError(
            f'dense names without a place: {list(unexpected)}; names that the dense '
            f'weights lack: {lost}'
        )
    return len(missing)


def max_error(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Largest difference of two tuples of maps, each relative to the map's largest value."""
    _check_shapes('outputs', got, expected)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(got, expected))


# ---------------------------------------------------------------------- whole model
def check_model(cfg: Config, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """Builds a config's model after the swap and computes one training step's gradients.

    Args:
        cfg: Config of a dense model; it is not changed.
        size: Height and width of the two random images in pixels.

    Returns:
        ``loss``, the sum of the losses; ``new``, the number of sparse parameters, all of which got
        a gradient; ``optimizer``, the constructor that grouped the parameters.

    Raises:
        SwapError: If a promise is broken.
        UserError: If the backbone cannot be swapped.
    """
    cfg = Config(cfg.to_dict(), filename=cfg.filename)
    sparsify(cfg, KEEP_RATIO)
    # A block that stochastic depth leaves out for both images has no gradient.
    to_swap(cfg).config['drop_path_rate'] = 0.0
    load_library(cfg)
    model = build_model(cfg, size)
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')  # mixed precision needs an accelerator
    for key in ('loss_scale', 'dtype', 'use_fp16'):
        wrapper.pop(key, None)
    groups = build_optim_wrapper(model, Config(wrapper)._cfg_dict).optimizer.param_groups
    grouped = {id(parameter) for group in groups for parameter in group['params']}
    left_out = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in grouped
    ]
    if left_out:
        raise SwapError(f'parameters without an optimizer: {left_out}')

    model.train()
    SpatialSparsityHook().attach(model)
    batch = model.data_preprocessor(dummy_batch(cfg, size), True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    if not loss.isfinite():
        raise SwapError(f'the loss is {loss.item()}')
    loss.backward()
    new = new_parameters(model)
    without = [
        name
        for name, parameter in new.items()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    if without or not new:
        raise SwapError(f'no gradient for {without or "any sparse parameter"}')
    return dict(
        loss=loss.item(),
        new=len(new),
        optimizer=wrapper.get('constructor', 'DefaultOptimWrapperConstructor'),
    )
