"""Does the swap of a config's backbone do what is promised?

For a backbone alone (:func:`check_backbone`): the dense weights load with nothing but the sparse
parts missing, the swapped network computes what the dense one does, and it runs sparse. For a
whole model (:func:`check_model`): it trains a step.
"""

import importlib
from typing import Any

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import set_random_seed
from mmengine.utils import import_modules_from_strings
from torch import Tensor

from ..configuration.read import leaf_datasets, without_pretrained
from ..configuration.swap import sparsify
from ..recording import record_decisions
from ..training import SpatialSparsityHook
from ..training.new_parts import is_new, new_parameters
from .options import UserError

KEEP_RATIO = 0.7
TOLERANCE = 1e-5  # of the largest value of a map
SIZE = (256, 320)


class SwapError(Exception):
    """A promise that a swap breaks."""


def load_library(cfg: Config) -> None:
    """Imports what the config's library registers and makes it the default scope."""
    for part in ('models', 'engine'):
        importlib.import_module(f'{cfg.default_scope}.{part}')
    import_modules_from_strings(**(cfg.get('custom_imports') or dict(imports=[])))
    init_default_scope(cfg.default_scope)


def input_size(cfg: Config) -> tuple[int, int]:
    """Height and width in pixels that the config's images have when they reach the network.

    The crop of a segmentor; the test size of a classifier and of a detector, whose longer side is
    taken as the width and padded to a multiple of 32; without data, ``img_size`` of the backbone.

    Raises:
        UserError: The config does not say.
    """
    if cfg.default_scope == 'mmseg':
        return tuple(cfg.model.data_preprocessor.size)
    loaders = [cfg.get(f'{split}_dataloader') for split in ('test', 'val', 'train')]
    loader = next((loader for loader in loaders if loader), None)
    if loader is None and 'img_size' in cfg.model.backbone:  # a backbone for use in other models
        return (cfg.model.backbone.img_size,) * 2
    dataset = next((leaf for _, leaf in leaf_datasets(loader and loader.dataset)), {})
    for step in reversed(dataset.get('pipeline') or []):
        size = step.get('crop_size') or step.get('scale')
        if size is not None and ('Crop' in step.type or 'Resize' in step.type):
            short, long = sorted((size, size) if isinstance(size, int) else size)
            if cfg.default_scope == 'mmdet':
                short, long = (-(-side // 32) * 32 for side in (short, long))
            return short, long
    raise UserError(f'{cfg.filename}: no transform of the test pipeline names a size')


# ---------------------------------------------------------------------- backbone
def check_backbone(cfg: Config, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Builds the dense backbone of a config and its sparse counterpart and compares them.

    All weights are random, layer scales and response norms too, which start near zero.

    Args:
        cfg: Of a dense model; it is not changed.
        size: Of the image in pixels; None takes the config's own.

    Returns:
        ``size``; ``tensors`` of the dense state dict; ``new`` tensors of the sparse parts;
        ``error``, the largest deviation from the dense outputs relative to their largest value;
        ``keep_ratios`` that were realised.

    Raises:
        SwapError: If a promise is broken.
        ValueError: If the backbone cannot be swapped.
    """
    size = size or input_size(cfg)
    dense_cfg = without_pretrained(cfg.model.backbone)
    sparse_cfg = sparse_backbone(cfg)
    load_library(cfg)
    set_random_seed(0)
    dense = MODELS.build(dense_cfg)
    dense.eval()  # returns None in some of the libraries' classes
    randomise(dense)
    weights = dense.state_dict()
    image = torch.randn(1, dense_cfg.get('in_channels', 3), *size)
    with torch.no_grad():
        expected = dense(image)
    del dense

    same = MODELS.build(dict(sparse_cfg, keep_ratios=None)).eval()
    load_dense(same, weights)
    with torch.no_grad():
        got = same(image)
    del same
    error = max_error(got, expected)
    if not error <= TOLERANCE:
        raise SwapError(
            'with keep_ratios=None the outputs differ from the dense ones by '
            f'{error:.1e} of their largest value'
        )

    sparse = MODELS.build(sparse_cfg).eval()
    new = load_dense(sparse, weights)
    if not new:
        raise SwapError('the sparse backbone has no new parts')
    with torch.no_grad(), record_decisions(sparse) as log:
        outs = sparse(image)
    if [out.shape for out in outs] != [out.shape for out in expected]:
        raise SwapError(
            f'sparse outputs have shapes {[tuple(out.shape) for out in outs]}, dense '
            f'ones {[tuple(out.shape) for out in expected]}'
        )
    if not all(out.isfinite().all() for out in outs):
        raise SwapError('sparse outputs are not finite')
    if len(log.decisions) != len(sparse.keep_ratios):
        raise SwapError(f'{len(log.decisions)} decisions for {len(sparse.keep_ratios)} predictors')
    for decision in log.decisions:
        count = decision.hw[0] * decision.hw[1]
        if decision.keep.sum().item() != int(count * decision.target):
            raise SwapError(
                f'{decision.keep.sum().item()} of {count} positions are slow, the keep '
                f'ratio is {decision.target}'
            )
    return dict(
        size=tuple(size),
        tensors=len(weights),
        new=new,
        error=error,
        keep_ratios=[decision.keep_ratio.item() for decision in log.decisions],
    )


def sparse_backbone(cfg: Config) -> dict[str, Any]:
    """The backbone after the swap, without pretrained weights; ``cfg`` is not changed."""
    cfg = Config(cfg.to_dict(), filename=cfg.filename)
    sparsify(cfg, KEEP_RATIO)
    return without_pretrained(cfg.model.backbone)


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
    if [out.shape for out in got] != [out.shape for out in expected]:
        raise SwapError(
            f'outputs have shapes {[tuple(out.shape) for out in got]}, dense ones '
            f'{[tuple(out.shape) for out in expected]}'
        )
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(got, expected))


# ---------------------------------------------------------------------- whole model
def check_model(cfg: Config, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """Builds a config's model after the swap and computes one training step's gradients.

    Args:
        cfg: Of a dense model; it is not changed.
        size: Of the two random images, in pixels.

    Returns:
        ``loss``, the sum of the losses; ``new``, the number of sparse parameters, all of which got
        a gradient; ``optimizer``, the constructor that grouped the parameters.

    Raises:
        SwapError: If a promise is broken.
        ValueError: If the backbone cannot be swapped.
    """
    cfg = Config(cfg.to_dict(), filename=cfg.filename)
    sparsify(cfg, KEEP_RATIO)
    # A block that stochastic depth leaves out for both images has no gradient.
    cfg.model.backbone.drop_path_rate = 0.0
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
    new = new_parameters(model.backbone)
    without = [
        name
        for name, parameter in new.items()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    if without or not new:
        raise SwapError(f'no gradient for {without or "any sparse part"}')
    return dict(
        loss=loss.item(),
        new=len(new),
        optimizer=wrapper.get('constructor', 'DefaultOptimWrapperConstructor'),
    )


def build_untouched(cfg: Config) -> BaseModel:
    """The dense model exactly as its library's own tools build it."""
    load_library(cfg)
    if cfg.get('data_preprocessor') is not None:  # as mmengine's runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(cfg.model)


def build_model(cfg: Config, size: tuple[int, int] = SIZE) -> BaseModel:
    """The model of a config, from scratch, for images of this size."""
    model = without_pretrained(cfg.model)
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor')
    if preprocessor is not None:
        model['data_preprocessor'] = dict(preprocessor)
    if cfg.default_scope == 'mmdet':  # pads to the size of the training images
        model['data_preprocessor'].pop('batch_augments', None)
    elif cfg.default_scope == 'mmseg':
        model['data_preprocessor'].update(size=size)
    set_random_seed(0)
    model = MODELS.build(model)
    model.init_weights()
    return model


def dummy_batch(
    cfg: Config, size: tuple[int, int] = SIZE, num_classes: int = 5, count: int = 2
) -> dict[str, Any]:
    """Random images with labels of the first classes, as a dataloader collates them.

    Args:
        cfg: Of a detector, segmentor or classifier.
        size: Height and width in pixels.
        num_classes: How many classes occur.
        count: Of images.

    Returns:
        ``inputs``, uint8 images (C, H, W), and ``data_samples`` of the library, for its
        ``data_preprocessor``; for a model of videos one of two frames.
    """
    library = cfg.default_scope
    if library == 'mmdet':
        demo = importlib.import_module('mmdet.testing')
        # Detectors of boxes alone do not expect masks.
        masks = cfg.model.data_preprocessor.get('pad_mask', False)
        if 'Track' in cfg.model.data_preprocessor.type:  # images are the frames of a video
            return demo.demo_track_inputs(
                1,
                2,
                key_frames_inds=[0],
                image_shapes=(3, *size),
                num_items=[3],
                num_classes=num_classes,
                with_mask=masks,
            )
        return demo.demo_mm_inputs(
            count,
            [(3, *size)] * count,
            num_items=[3] * count,
            num_classes=num_classes,
            with_mask=masks,
            with_semantic=masks,
        )
    structures = importlib.import_module(f'{library}.structures')
    samples = []
    for i in range(count):
        if library == 'mmseg':
            labels = torch.randint(0, num_classes, (1, *size))
            labels[:, : size[0] // 8] = 255  # ignored
            sample = structures.SegDataSample(
                metainfo=dict(img_shape=size, ori_shape=size),
                gt_sem_seg=importlib.import_module('mmengine.structures').PixelData(data=labels),
            )
        else:
            sample = structures.DataSample().set_gt_label(i % num_classes)
        samples.append(sample)
    channels = cfg.model.backbone.get('in_channels', 3)
    images = torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8)
    return dict(inputs=images if library == 'mmpretrain' else list(images), data_samples=samples)
