"""Any library's model and a batch for it, built from a config without data."""

import difflib
import importlib
import inspect
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, Registry, init_default_scope
from mmengine.runner import set_random_seed
from mmengine.utils import import_modules_from_strings

from ..configuration import leaf_datasets, without_pretrained
from ..configuration.places import find_backbone
from ..configuration.types import find_type, library_of, type_name
from ..errors import UserError

SIZE = (256, 320)  # pixels of images that show no more than that a model works
PACKAGE = __name__.partition('.')[0]


def load_library(cfg: Config) -> None:
    """Imports what the config's library registers and makes it the default scope."""
    for name in ('models', 'engine'):
        importlib.import_module(f'{library_of(cfg)}.{name}')
    import_modules_from_strings(**(cfg.get('custom_imports') or dict(imports=[])))
    init_default_scope(cfg.default_scope)


def input_size(cfg: Config) -> tuple[int, int]:
    """Height and width in pixels that the config's images have when they reach the network.

    The crop of a segmentor; the test size of a classifier and of a detector, whose longer side is
    taken as the width and padded to a multiple of 32; without data, ``img_size`` of the backbone.

    Raises:
        UserError: The config does not say.
    """
    library = library_of(cfg)
    if library == 'mmseg':
        return tuple(preprocessor_of(cfg)['size'])
    loaders = [cfg.get(f'{split}_dataloader') for split in ('test', 'val', 'train')]
    loader = next((loader for loader in loaders if loader), None)
    backbone = cfg.model.get('backbone') or {}
    if loader is None and 'img_size' in backbone:  # a backbone for use in other models
        return (backbone['img_size'],) * 2
    dataset = next((leaf for _, leaf in leaf_datasets(loader and loader.dataset)), {})
    for step in reversed(dataset.get('pipeline') or []):
        size = step.get('crop_size') or step.get('scale')
        if size is not None and any(word in type_name(step) for word in ('Crop', 'Resize')):
            short, long = sorted((size, size) if isinstance(size, int) else size)
            if library == 'mmdet':
                short, long = (-(-side // 32) * 32 for side in (short, long))
            return short, long
    raise UserError(f'{cfg.filename}: no transform of the test pipeline names a size')


def check_arguments(config: Any, root: Registry = MODELS) -> None:
    """Checks the arguments of this package's classes that a config names, however deep.

    Args:
        config: Config, or a list of configs.
        root: Registry of the classes.

    Raises:
        UserError: A class does not take one of them.
    """
    if isinstance(config, (list, tuple)):
        for item in config:
            check_arguments(item, root)
    elif isinstance(config, dict):
        for item in config.values():
            check_arguments(item, root)
        kind = config.get('type')
        if isinstance(kind, str):
            kind = find_type(config, root)
        if inspect.isclass(kind) and kind.__module__.partition('.')[0] == PACKAGE:
            _check_signature(kind, config)


def _check_signature(kind: type, config: dict[str, Any]) -> None:
    parameters = inspect.signature(kind).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # it looks at them itself
    unknown = [key for key in config if key not in parameters and key not in ('type', '_scope_')]
    if unknown:
        matches = (difflib.get_close_matches(str(key), parameters) for key in unknown)
        near = dict.fromkeys(name for names in matches for name in names)
        raise UserError(
            f'{kind.__name__}: unknown argument(s) '
            + ', '.join(f'{key}={config[key]!r}' for key in unknown)
            + (f'; near are {", ".join(near)}' if near else '')
        )


def build(config: dict[str, Any]) -> torch.nn.Module:
    """Builds a module of a config in the default scope.

    Raises:
        UserError: A class of this package does not take one of its arguments.
    """
    check_arguments(config)
    return MODELS.build(config)


def build_untouched(cfg: Config) -> BaseModel:
    """The dense model exactly as its library's own tools build it."""
    load_library(cfg)
    if cfg.get('data_preprocessor') is not None:  # as mmengine's runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return build(cfg.model)


def build_model(cfg: Config, size: tuple[int, int] = SIZE) -> BaseModel:
    """The model of a config, from scratch, for images of this size."""
    model, library = without_pretrained(cfg.model), library_of(cfg)
    preprocessor = preprocessor_of(cfg)
    if preprocessor:
        model['data_preprocessor'] = dict(preprocessor)
    if library == 'mmdet':  # pads to the size of the training images
        model['data_preprocessor'].pop('batch_augments', None)
    elif library == 'mmseg':
        model['data_preprocessor'].update(size=size)
    set_random_seed(0)
    model = build(model)
    model.init_weights()
    return model


def preprocessor_of(cfg: Config) -> dict[str, Any]:
    """Config of what prepares the data of a model, in it or beside it; empty for none."""
    return cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}


def dummy_batch(
    cfg: Config, size: tuple[int, int] = SIZE, num_classes: int = 5, count: int = 2
) -> dict[str, Any]:
    """Random images with labels of the first classes, as a dataloader collates them.

    Args:
        cfg: Config of a detector, segmentor or classifier.
        size: Height and width in pixels.
        num_classes: Number of classes that occur.
        count: Number of images.

    Returns:
        ``inputs``, uint8 images (C, H, W), and ``data_samples`` of the library, for its
        ``data_preprocessor``; for a model of videos one of two frames.
    """
    library = library_of(cfg)
    if library == 'mmdet':
        demo = importlib.import_module('mmdet.testing')
        # Detectors of boxes alone do not expect masks.
        masks = preprocessor_of(cfg).get('pad_mask', False)
        if 'Track' in type_name(preprocessor_of(cfg)):  # images are the frames of a video
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
    channels = find_backbone(cfg).config.get('in_channels', 3)
    images = torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8)
    return dict(inputs=images if library == 'mmpretrain' else list(images), data_samples=samples)
