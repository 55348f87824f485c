"""The frozen dense network that a sparse one learns from."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from ..checkpoints import load_from_anywhere, load_whole
from ..configuration.read import read_config, without_pretrained
from ..configuration.swap import sparsify
from ..recording.recorder import BackboneCall, record_maps
from .new_parts import is_new

KEYS = ('checkpoint', 'config')


class Outputs(NamedTuple):
    """What is compared of teacher and student.

    Attributes:
        maps: Normalised maps of the backbone, each (B, C_i, H_i, W_i).
        logits: (B, K) of a classifier, (B, K, H, W) of a segmentor; None if not asked for.
    """

    maps: tuple[Tensor, ...]
    logits: Tensor | None


def logit_layer(model: nn.Module) -> nn.Module | None:
    """The module whose output are the logits of a classifier or segmentor, None in others.

    That is the head of an mmpretrain classifier and ``conv_seg`` of the (last) decode head of an
    mmseg segmentor. Detectors have no logits per image or position, nor have segmentors that
    classify masks.
    """
    head = _logit_head(model)
    layer = getattr(head, 'conv_seg', None) if hasattr(model, 'decode_head') else head
    return layer if isinstance(layer, nn.Module) else None


def classifies_by_softmax(model: nn.Module) -> bool:
    """Whether the logits of a model are trained as those of one distribution over classes.

    They are not in heads for several labels, which take a sigmoid of each, for several tasks, and
    in those that add margins while they train.
    """
    head = _logit_head(model)
    losses = getattr(head, 'loss_module', None) or getattr(head, 'loss_decode', None)
    if logit_layer(model) is None or losses is None or hasattr(head, 'set_margins'):
        return False
    losses = losses if isinstance(losses, nn.ModuleList) else [losses]
    return not any(getattr(loss, 'use_sigmoid', False) for loss in losses)


def _logit_head(model: nn.Module) -> nn.Module | None:
    head = getattr(model, 'decode_head', getattr(model, 'head', None))
    return head[-1] if isinstance(head, nn.ModuleList) and len(head) else head


class OutputRecorder:
    """Records what a model computes: calls of its backbone and its last logits.

    As a context manager it listens while it is open.

    Args:
        model: Detector, segmentor or classifier.
        backbone: Name of its backbone's module.
        logits: Whether to record logits too; the model must have a :func:`logit_layer`.
    """

    def __init__(self, model: nn.Module, backbone: str, logits: bool):
        self.backbone = model.get_submodule(backbone)
        self.layer = logit_layer(model) if logits else None
        self.calls: list[BackboneCall] = []
        self.logits: Tensor | None = None

    def __enter__(self) -> 'OutputRecorder':
        self.logits = None
        self._open = ExitStack()
        self.calls = self._open.enter_context(record_maps(self.backbone))
        if self.layer is not None:
            self._open.callback(self.layer.register_forward_hook(self._keep_logits).remove)
        return self

    def __exit__(self, *error) -> None:
        self._open.close()

    def take(self) -> tuple[list[BackboneCall], Tensor | None]:
        """Calls and logits, which are then forgotten: they hold the graph of a forward."""
        taken = self.calls, self.logits
        self.calls, self.logits = [], None
        return taken

    def _keep_logits(self, module: nn.Module, args: tuple, output: Any) -> None:
        self.logits = output


def dense_config(model_cfg: Mapping) -> dict[str, Any]:
    """The config of a model with the keep ratios of all its backbones set to None."""
    if isinstance(model_cfg, (list, tuple)):
        return type(model_cfg)(dense_config(item) for item in model_cfg)
    if not isinstance(model_cfg, dict):
        return model_cfg
    copy = type(model_cfg)({key: dense_config(value) for key, value in model_cfg.items()})
    if 'keep_ratios' in copy:
        copy['keep_ratios'] = None
    return copy


class Teacher:
    """A dense network, frozen and in eval mode, that looks at the student's images.

    It is no module of the student: optimizers, checkpoints, averaged copies and distributed
    wrappers do not see it. Backbones of the libraries that this package has a class for are built
    as that class, which computes the same, at any size.

    Args:
        spec: Checkpoint of the student's own model, dense: a file or URL in any form that
            ``init_cfg`` takes. Or a dict with ``checkpoint`` and ``config``, the dense model's
            config file (such as ``mmdet::swin/...``) or its model dict.
        student_cfg: The student's config; None if the runner was built without one.
        backbone: Name of the backbone's module, in the student and in the teacher.
        logits: Whether its logits are wanted; else only the backbone is kept and run.

    Raises:
        ValueError: If the checkpoint cannot be had or lacks weights of a part that runs, the
            config cannot be read, or a part that is wanted does not exist.
    """

    def __init__(
        self, spec: str | Mapping, student_cfg: Config | None, backbone: str, logits: bool
    ):
        spec = self.parse(spec)
        self.name = spec['checkpoint']
        model = self._build(self._read_config(spec, student_cfg), student_cfg)
        try:
            inner = model.get_submodule(backbone)
        except AttributeError:
            raise ValueError(
                f'teacher: {type(model).__name__} has no {backbone}, which is the '
                "student's backbone"
            ) from None
        if logits and logit_layer(model) is None:
            raise ValueError(
                f'teacher: {type(model).__name__} has no logits to learn from; set logit_weight=0'
            )
        self._load(model, spec['checkpoint'], backbone, logits)
        # Detectors hold much that only maps do not need.
        self.model = model if logits else inner
        self.model.eval()  # returns nothing in some classes of the libraries
        self.model.requires_grad_(False)
        self._recorder = OutputRecorder(self.model, backbone if logits else '', logits)

    @staticmethod
    def parse(spec: str | Mapping) -> dict[str, Any]:
        """Checks a ``teacher`` argument and gives it as a dict with checkpoint and config.

        Raises:
            ValueError: For anything but a file name or a dict of these.
        """
        if isinstance(spec, str) and spec:
            return dict(checkpoint=spec, config=None)
        if (
            not isinstance(spec, Mapping)
            or set(spec) - set(KEYS)
            or not spec.get('checkpoint')
            or not isinstance(spec['checkpoint'], str)
            or not isinstance(spec.get('config'), (str, Mapping, type(None)))
        ):
            raise ValueError(
                f'teacher={spec!r}: must be the checkpoint of the dense model, or '
                "dict(checkpoint=FILE, config=the dense model's config file or dict)"
            )
        return dict(checkpoint=spec['checkpoint'], config=spec.get('config'))

    @staticmethod
    def _read_config(spec: Mapping, student_cfg: Config | None) -> Config:
        given = spec['config']
        if isinstance(given, str):
            try:
                cfg = read_config(given)
            except ValueError as error:
                raise ValueError(f'teacher: {error}') from error
        else:
            cfg = Config(dict(model=given)) if given is not None else (student_cfg or Config())
        if not isinstance(cfg.get('model'), Mapping):
            source = given if isinstance(given, str) else 'the config of the run'
            raise ValueError(
                f'teacher: {source} has no model; give teacher=dict(checkpoint=FILE, config=CONFIG)'
            )
        return cfg

    def _build(self, cfg: Config, student_cfg: Config | None) -> nn.Module:
        scope = (
            str(cfg.model.get('type')).rpartition('.')[0]
            or cfg.get('default_scope')
            or (student_cfg or Config()).get('default_scope')
        )
        cfg = Config(dict(model=without_pretrained(dense_config(cfg.model)), default_scope=scope))
        try:
            sparsify(cfg, 1.0)
        except ValueError:
            pass  # a backbone of another family, or somewhere else
        try:
            # Weights that are drawn and replaced must not shift what training draws.
            with DefaultScope.overwrite_default_scope(scope), torch.random.fork_rng(devices=[]):
                return MODELS.build(cfg.model)
        except (AssertionError, ImportError, KeyError, TypeError, ValueError) as error:
            reason = ' '.join(str(error.args[0] if error.args else error).split())
            raise ValueError(f'teacher {self.name}: its model cannot be built: {reason}') from error

    @staticmethod
    def _load(model: nn.Module, checkpoint: str, backbone: str, logits: bool) -> None:
        def optional(name: str) -> bool:
            if logits:
                return name.startswith('auxiliary_head')
            return not name.startswith(f'{backbone}.')

        try:
            state_dict = load_from_anywhere(checkpoint)['state_dict']
            if not logits and not any(key.startswith(f'{backbone}.') for key in state_dict):
                state_dict = {f'{backbone}.{key}': value for key, value in state_dict.items()}
            # Parts that do not run may be for other classes.
            load_whole(
                model,
                {key: value for key, value in state_dict.items() if not optional(key)},
                optional,
            )
        except ValueError as error:
            raise ValueError(f'teacher {checkpoint}: {error}') from error
        if any(is_new(key) for key in state_dict):
            print_log(
                f'teacher {checkpoint} is of a sparse model: its token predictors and fast '
                'paths are not used, it runs dense',
                'current',
                logging.WARNING,
            )

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        # It is frozen, so copies of a student that trains can share it.
        return self

    def follow(self, parameter: nn.Parameter) -> None:
        """Goes to the device and takes the dtype of a parameter of the student."""
        own = next(self.model.parameters())
        if own.device != parameter.device or own.dtype != parameter.dtype:
            self.model.to(device=parameter.device, dtype=parameter.dtype)

    def __call__(self, image: Tensor) -> Outputs:
        """(B, C, H, W) input of the student's backbone -> what is learnt from."""
        with torch.no_grad(), self._recorder as recorder:
            if recorder.layer is None:
                self.model(image)
            else:
                self.model(image, mode='tensor')
        calls, logits = recorder.take()
        return Outputs(calls[-1].maps, logits)
