"""The networks that a benchmark compares, by what its command line calls them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import set_random_seed
from torch import Tensor

from ..analysis.steps import BackboneAlone
from ..backbones import create
from ..backbones.base import Backbone
from ..checkpoints import load_from_anywhere
from ..configuration import parse_ratios, without_pretrained
from ..configuration.places import BACKBONE, find_backbone
from ..errors import UserError
from ..ops import resolve_backend
from .harness import build, build_model, dummy_batch, load_library
from .options import enable_sparse, load_config, override, parse_overrides, require


class Candidate:
    """A network as the command line names it.

    Args:
        label: A config file, a config of a library such as 'mmdet::...', or a name that
            ``create_backbone`` takes; then what changes: '@sparse=RATIO' swaps its backbone as
            :func:`~dynsp_mm.configuration.sparsify` does, '@dense' does the same with every
            position kept, '@KEY=VALUE' sets an argument of the backbone and '@model.KEY=VALUE' an
            entry of the config.

    Raises:
        UserError: There is no such config, it has no backbone, that cannot be swapped, or a change
            does not fit.
    """

    def __init__(self, label: str):
        self.label = label
        self.name, *changes = re.split(r'@(?=dense(?:@|$)|[\w.]+=)', label)
        self.named = create.names_a_family(self.name)
        swap, options = None, []
        for change in changes:
            key, _, value = change.partition('=')
            if key in ('dense', 'sparse'):
                swap = '1' if key == 'dense' else value
            elif swap is not None and key.rpartition('.')[-1] == 'keep_ratios':
                raise UserError(
                    f'{label}: two ratios: @sparse=RATIO says both that the backbone is sparse and '
                    'its ratio'
                )
            else:
                options.append(change)
        read = self._read_name if self.named else self._read_config
        self.cfg = read(swap, options)

    @property
    def backbone(self) -> dict[str, Any]:
        """The config of the backbone."""
        return self.cfg.model.backbone if self.named else find_backbone(self.cfg).alone

    def _read_name(self, swap: str | None, options: list[str]) -> Config:
        """The config of a backbone that has but a name."""
        cfg = Config(dict(model=dict(backbone=dict())))
        cfg.merge_from_dict(_overrides(options, BACKBONE) or {})
        if len(cfg.model) > 1:
            raise UserError(f'{self.label}: a backbone without config has nothing else to change')
        if swap is not None:
            try:
                cfg.model.backbone.keep_ratios = parse_ratios(swap)
            except UserError as error:
                raise UserError(f'{self.label}: {error}') from error
        return cfg

    def _read_config(self, swap: str | None, options: list[str]) -> Config:
        """The config of a file, changed."""
        if '::' not in self.name and not Path(self.name).is_file():
            raise UserError(
                f'{self.name}: neither a config file, nor a config of a library '
                'such as mmdet::..., nor a backbone such as dynamic_swin_t'
            )
        cfg = load_config(self.name)
        require(cfg, 'model')
        override(cfg, _overrides(options, find_backbone(cfg).key))
        enable_sparse(cfg, swap)
        return cfg

    def build(self, part: str, size: tuple[int, int]) -> BaseModel:
        """A model with a ``backbone`` and random weights, the same at each call.

        Args:
            part: 'backbone' or 'model', the whole of it.
            size: Height and width of the images in pixels.

        Raises:
            UserError: It cannot be built.
        """
        set_random_seed(0)
        try:
            if self.named:
                return BackboneAlone(
                    create.create_backbone(self.name, **self.cfg.model.backbone.to_dict())
                )
            load_library(self.cfg)
            if part == 'model':
                model = build_model(self.cfg, size)
                if not hasattr(model, 'backbone'):
                    raise UserError(
                        f'--part model measures models with a backbone of their own, and its is '
                        f'{find_backbone(self.cfg).key}; --part backbone measures that'
                    )
                return model
            backbone = build(without_pretrained(self.backbone))
            backbone.init_weights()
            return BackboneAlone(backbone)
        except (AssertionError, ImportError, KeyError, OSError, TypeError, ValueError) as error:
            reason = error.args[0] if error.args else type(error).__name__
            raise UserError(f'{self.label}: the {part} cannot be built: {reason}') from error

    def batch(
        self, model: BaseModel, count: int, size: tuple[int, int], training: bool
    ) -> dict[str, Any]:
        """``count`` random images, the same for all, as the model takes them, where it is.

        Raises:
            UserError: The model takes other things than single images.
        """
        set_random_seed(0)
        if isinstance(model, BackboneAlone):
            channels = self.backbone.get('in_channels', 3)
            images = torch.randn(count, channels, *size)
            return dict(inputs=images.to(next(model.parameters()).device))
        # Few classes: the labels must exist in every model.
        images = dummy_batch(self.cfg, size, 2, count)
        batch = model.data_preprocessor(images, training)
        if not isinstance(batch['inputs'], torch.Tensor) or batch['inputs'].dim() != 4:
            raise UserError(f'{self.label}: --part model measures models of single images')
        return batch

    @property
    def model_cfg(self) -> Config:
        """The config of what :meth:`build` builds, as a teacher needs it."""
        if not self.named:
            return self.cfg
        cls, arguments = create.parse_name(self.name, self.cfg.model.backbone.to_dict())
        return Config(
            dict(
                model=dict(type=BackboneAlone.__name__, backbone=dict(arguments, type=cls.__name__))
            )
        )


def _overrides(options: Sequence[str], backbone: str) -> dict[str, Any] | None:
    """Entries of a config by what changes in a candidate, given the key of its backbone."""
    return parse_overrides(
        [text if text.startswith('model.') else f'{backbone}.{text}' for text in options]
    )


def build_alike(
    candidates: Sequence[Candidate],
    part: str,
    count: int,
    size: tuple[int, int],
    device: torch.device,
    training: bool = False,
    weights: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[BaseModel, dict[str, Any]]]:
    """Model and batch of each candidate, one after the other, with equal weights and images.

    Args:
        candidates: Networks; the weights of the first go to all, where names and shapes agree.
        part: 'backbone' or 'model'.
        count: Number of images.
        size: Height and width of the images in pixels.
        device: Device of models and batches.
        training: Whether the batch is one for training.
        weights: State dict of a checkpoint, for all candidates.

    Raises:
        UserError: A candidate cannot be built, or none of ``weights`` fits it.
    """
    shared: Mapping[str, Tensor] = {}
    for candidate in candidates:
        model = candidate.build(part, size)
        load_fitting(model, shared)
        shared = shared or model.state_dict()
        if weights and not load_fitting(model, weights):
            raise UserError(f'--checkpoint: none of its tensors fits {candidate.label}')
        model.to(device)
        yield model, candidate.batch(model, count, size, training)


def make_ready(
    model: BaseModel,
    batch: dict[str, Any],
    part: str,
    dtype: torch.dtype,
    autocast: bool,
    backend: str | None,
    release_weights: bool = False,
) -> str | None:
    """Makes model and batch ready for inference in a precision.

    Backbones of this package are prepared (:meth:`Backbone.prepare_for_inference`).

    Args:
        model: A model with a ``backbone``.
        batch: Arguments that it is called with; their images may be cast.
        part: 'backbone', whose weights and images are cast, or 'model', which wants autocast.
        dtype: The precision.
        autocast: Whether backbones that are not prepared want autocast, too.
        backend: Name of the backend to prepare with; None prepares nothing.
        release_weights: Whether prepared backbones let go of weights, see
            :meth:`Backbone.prepare_for_inference`.

    Returns:
        The backend with which the backbone is prepared; None if it is not. In a whole model in
        reduced precision it is not: under autocast prepared forms do not run.

    Raises:
        UserError: The backend, if named, cannot run.
    """
    prepared = (
        backend is not None
        and isinstance(model.backbone, Backbone)
        and (part == 'backbone' or dtype == torch.float32)
    )
    if part == 'backbone' and (prepared or not autocast) and dtype != torch.float32:
        model.backbone.to(dtype)
        batch['inputs'] = batch['inputs'].to(dtype)
    if not prepared:
        if backend not in (None, 'auto') and isinstance(model.backbone, Backbone):
            raise UserError(
                f'backend={backend!r}: whole models run in reduced precision by '
                'autocast, under which no prepared backbone runs'
            )
        return None
    weights = next(model.backbone.parameters())
    model.backbone.prepare_for_inference(backend, release_weights)
    return resolve_backend(backend, weights.device, weights.dtype)


def find_candidates(
    names: Sequence[str], dense: bool = False, ratios: Sequence[str] = ()
) -> list[Candidate]:
    """Candidates, each followed by its dense and its sparse forms, with distinct labels.

    Args:
        names: Labels, as :class:`Candidate` takes them.
        dense: Whether to add NAME@dense.
        ratios: Ratios, for each of which NAME@sparse=RATIO is added.
    """
    labels = []
    for name in names:
        labels += [name, *[f'{name}@dense'] * dense, *(f'{name}@sparse={r}' for r in ratios)]
    candidates = [Candidate(label) for label in labels]
    for index, candidate in enumerate(candidates):  # one named twice shows the noise
        number = labels[:index].count(candidate.label) + 1
        candidate.label += f' ({number})' if number > 1 else ''
    return candidates


def read_weights(checkpoint: str) -> dict[str, Tensor]:
    """State dict of a whole model from a checkpoint of one, or of a backbone.

    Raises:
        UserError: The file cannot be had or is no checkpoint.
    """
    weights = load_from_anywhere(checkpoint)['state_dict']
    if any(name.startswith('backbone.') for name in weights):
        return weights
    return {'backbone.' + name: value for name, value in weights.items()}


def load_fitting(model: nn.Module, weights: Mapping[str, Tensor]) -> int:
    """Loads the tensors that agree in name and shape; returns how many."""
    own = model.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and own[name].shape == value.shape
    }
    model.load_state_dict(fitting, strict=False)
    return len(fitting)
