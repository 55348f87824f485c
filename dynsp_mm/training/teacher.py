"""The frozen dense network that a sparse one learns from."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from ..checkpoints import OtherChannels, load_from_anywhere, load_whole
from ..configuration.read import read_config, without_pretrained
from ..configuration.swap import sparsify
from ..configuration.types import scope_of_type
from ..errors import UserError
from ..recording import OutputRecorder, logit_layer
from ..sparsity import TokenPredictor
from .new_parameters import is_new

KEYS = ('checkpoint', 'config')
# Classes that stand around a module and train beside its weights; they hold it as ``module``.
ADAPTERS = ('LoRAModel',)


class UnfitLogits(UserError):
    """The logits of teacher and student cannot be compared; their maps may be."""

    WAY_ON = (
        "logit_weight=0 of the SpatialSparsityHook in the config's custom_hooks leaves them out"
    )

    def __init__(self, what: str) -> None:
        super().__init__(f'{what}; {self.WAY_ON}')


class OtherClasses(UnfitLogits):
    """The logits of a teacher are for other classes than the student's."""

    def __init__(self, teacher: str, what: str) -> None:
        super().__init__(f'teacher {teacher}: its logits are for other classes: {what}')


class Outputs(NamedTuple):
    """Outputs of a teacher or student that are compared.

    Attributes:
        maps: Normalised maps of the backbone, each (B, C_i, H_i, W_i).
        logits: Logits of a classifier, (B, K), or segmentor, (B, K, H, W); None if not asked for.
    """

    maps: tuple[Tensor, ...]
    logits: Tensor | None


def dense_config(model_cfg: Mapping) -> dict[str, Any]:
    """Copies the config of a model, with the keep ratios of all its backbones set to None."""
    if isinstance(model_cfg, (list, tuple)):
        return type(model_cfg)(dense_config(item) for item in model_cfg)
    if not isinstance(model_cfg, dict):
        return model_cfg
    copy = type(model_cfg)({key: dense_config(value) for key, value in model_cfg.items()})
    if 'keep_ratios' in copy:
        copy['keep_ratios'] = None
    return copy


def without_adapters(model_cfg: Mapping) -> Any:
    """Copies the config of a model, with what stands in adapters in their places."""
    if isinstance(model_cfg, (list, tuple)):
        return type(model_cfg)(without_adapters(item) for item in model_cfg)
    if not isinstance(model_cfg, dict):
        return model_cfg
    kind, inner = model_cfg.get('type'), model_cfg.get('module')
    kind = kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[-1]
    if kind in ADAPTERS and isinstance(inner, dict):
        return without_adapters(inner)
    return type(model_cfg)({key: without_adapters(value) for key, value in model_cfg.items()})


@dataclass(frozen=True, eq=False)
class TeacherSpec:
    """Description of a teacher: a checkpoint and a config, or a model.

    Attributes:
        checkpoint: File or URL in any form that ``init_cfg`` takes; None with a model.
        config: Config file or model dict of the dense model; None for the student's own.
        model: Dense model itself.
    """

    checkpoint: str | None = None
    config: str | Mapping | None = None
    model: nn.Module | None = None

    def __deepcopy__(self, memo: dict) -> 'TeacherSpec':
        # The model is never trained, so copies of a student that trains can share it.
        return self

    @classmethod
    def parse(cls, value: 'str | Mapping | nn.Module | TeacherSpec') -> 'TeacherSpec':
        """Checks a ``teacher`` argument.

        Raises:
            UserError: The value is no model, no file name and no dict of ``KEYS``.
        """
        if isinstance(value, TeacherSpec):
            return value
        if isinstance(value, nn.Module):
            return cls(model=value)
        if isinstance(value, str) and value:
            return cls(value)
        if (
            not isinstance(value, Mapping)
            or set(value) - set(KEYS)
            or not value.get('checkpoint')
            or not isinstance(value['checkpoint'], str)
            or not isinstance(value.get('config'), (str, Mapping, type(None)))
        ):
            raise UserError(
                f'teacher={value!r}: must be the checkpoint of the dense model, or '
                "dict(checkpoint=FILE, config=the dense model's config file or dict)"
            )
        return cls(value['checkpoint'], value.get('config'))

    @property
    def name(self) -> str:
        """What messages call the teacher."""
        return self.checkpoint or type(self.model).__name__

    def read_config(self, student_cfg: Config | None) -> Config:
        """Reads the config with the teacher's model, which is the student's unless one is given.

        Raises:
            UserError: The config cannot be read, or has no model.
        """
        given = self.config
        if isinstance(given, str):
            try:
                cfg = read_config(given)
            except ValueError as error:
                raise UserError(f'teacher: {error}') from error
        else:
            cfg = Config(dict(model=given)) if given is not None else (student_cfg or Config())
        if not isinstance(cfg.get('model'), Mapping):
            source = given if isinstance(given, str) else 'the config of the run'
            raise UserError(
                f'teacher: {source} has no model; give teacher=dict(checkpoint=FILE, config=CONFIG)'
            )
        return cfg


def build_dense(cfg: Config, default_scope: str | None = None) -> nn.Module:
    """Builds the model of a config in its dense form, with random weights.

    Backbones of the libraries that this package has a class for are built as that class, which
    computes the same, at any size. The random state is as it was afterwards.

    Args:
        cfg: Config with a ``model``.
        default_scope: Scope of a config that names none.

    Raises:
        UserError: The model cannot be built.
    """
    scope = scope_of_type(cfg.model) or cfg.get('default_scope') or default_scope
    cfg = Config(dict(model=without_pretrained(dense_config(cfg.model)), default_scope=scope))
    with suppress(ValueError):  # a backbone of another family, or somewhere else
        sparsify(cfg, 1.0)
    try:
        # Weights that are drawn and replaced must not shift what training draws.
        with DefaultScope.overwrite_default_scope(scope), torch.random.fork_rng(devices=[]):
            return MODELS.build(cfg.model)
    except (AssertionError, ImportError, KeyError, TypeError, ValueError) as error:
        reason = ' '.join(str(error.args[0] if error.args else error).split())
        raise UserError(f'its model cannot be built: {reason}') from error


def name_in_teacher(model: nn.Module, backbone: str) -> str:
    """The name in a teacher of the student's backbone, which may stand in an adapter there.

    Raises:
        UserError: The teacher has no such module.
    """
    plain = '.'.join(word for word in backbone.split('.') if word != 'module')
    names = [name for name, _ in model.named_modules()]
    for name in (backbone, plain):
        if name in names:
            return name
    raise UserError(
        f"teacher: {type(model).__name__} has no {backbone}, which is the student's backbone"
    )


class Teacher:
    """A dense network, frozen and in eval mode, that looks at the student's images.

    It is no module of the student: optimizers, checkpoints, averaged copies and distributed
    wrappers do not see it.

    Args:
        model: Dense detector, segmentor or classifier. It is frozen and put into eval mode, and
            moves to the student's device and dtype.
        backbone: Name of its backbone's module, or of the student's in an adapter.
        logits: Whether its logits are wanted; else only the backbone is kept and run.
        name: Name for messages; default the model's class.

    Raises:
        UserError: The model has no such backbone, no logits where they are wanted, or takes
            decisions itself.
    """

    def __init__(
        self,
        model: nn.Module,
        backbone: str = 'backbone',
        logits: bool = False,
        name: str | None = None,
    ) -> None:
        kind = type(model).__name__
        self.name = name or kind
        backbone = name_in_teacher(model, backbone)
        inner = model.get_submodule(backbone)
        if logits and logit_layer(model) is None:
            raise UnfitLogits(f'teacher: {kind} has no logits to learn from')
        # Detectors hold much that only maps do not need.
        self.model = model if logits else inner
        if any(isinstance(module, TokenPredictor) for module in self.model.modules()):
            raise UserError(
                f'teacher: {kind} has token predictors; give its dense form, keep_ratios=None'
            )
        self.model.eval()  # returns nothing in some classes of the libraries
        self.model.requires_grad_(False)
        self._recorder = OutputRecorder(self.model, backbone if logits else '', logits)

    @classmethod
    def from_spec(
        cls,
        spec: str | Mapping | nn.Module | TeacherSpec,
        student_cfg: Config | None,
        backbone: str,
        logits: bool,
    ) -> 'Teacher':
        """Builds the teacher that a ``teacher`` argument asks for.

        Args:
            spec: Checkpoint of the student's own model, dense and without adapters: a file or URL
                in any form that ``init_cfg`` takes. Or a dict with ``checkpoint`` and ``config``,
                the dense model's config file (such as ``mmdet::swin/...``) or its model dict. Or
                the dense model itself.
            student_cfg: Config of the student; None if the runner was built without one.
            backbone: Name of the backbone's module, in the student and in the teacher.
            logits: Whether its logits are wanted.

        Raises:
            UnfitLogits: The checkpoint's logits are for other classes than the model's, or the
                model has none.
            UserError: The checkpoint cannot be had or lacks weights of a module that runs, the
                config cannot be read, or backbone or logits do not exist.
        """
        spec = TeacherSpec.parse(spec)
        if spec.model is not None:
            return cls(spec.model, backbone, logits)
        cfg = spec.read_config(student_cfg)
        cfg = Config(
            dict(model=without_adapters(cfg.model), default_scope=cfg.get('default_scope'))
        )
        try:
            model = build_dense(cfg, (student_cfg or Config()).get('default_scope'))
        except UserError as error:
            raise UserError(f'teacher {spec.name}: {error}') from error
        teacher = cls(model, backbone, logits, spec.name)
        _load(model, spec.name, name_in_teacher(model, backbone), logits)
        return teacher

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        # It is frozen, so copies of a student that trains can share it.
        return self

    def follow(self, parameter: nn.Parameter) -> None:
        """Goes to the device and takes the dtype of a parameter of the student."""
        own = next(self.model.parameters())
        if own.device != parameter.device or own.dtype != parameter.dtype:
            self.model.to(device=parameter.device, dtype=parameter.dtype)

    def __call__(self, image: Tensor) -> Outputs:
        """Looks at a (B, C, H, W) input of the student's backbone."""
        with torch.no_grad(), self._recorder as recorder:
            if recorder.layer is None:
                self.model(image)
            else:
                self.model(image, mode='tensor')
        calls, logits = recorder.take()
        return Outputs(calls[-1].maps, logits)


def _check_classes(model: nn.Module, checkpoint: str, state_dict: Mapping[str, Tensor]) -> None:
    """Raises :class:`OtherClasses` where tensors of the logits differ in their number of rows."""
    layer = logit_layer(model)
    prefix = next(name for name, module in model.named_modules() if module is layer)
    for name, parameter in layer.named_parameters(prefix=prefix):
        own, theirs = parameter.shape, getattr(state_dict.get(name), 'shape', parameter.shape)
        if theirs != own and theirs[1:] == own[1:]:
            raise OtherClasses(
                checkpoint, f'{name} has shape {tuple(theirs)}, the model {tuple(own)}'
            )


def _load(model: nn.Module, checkpoint: str, backbone: str, logits: bool) -> None:
    """Loads the weights of the modules of a teacher that run; others may be for other classes."""

    def optional(name: str) -> bool:
        if logits:
            return name.startswith('auxiliary_head')
        return not name.startswith(f'{backbone}.')

    try:
        state_dict = load_from_anywhere(checkpoint)['state_dict']
        if not logits and not any(key.startswith(f'{backbone}.') for key in state_dict):
            # A backbone alone, or below the usual name and not below that in the student.
            state_dict = {
                f'{backbone}.{key.removeprefix("backbone.")}': value
                for key, value in state_dict.items()
            }
        if logits:
            _check_classes(model, checkpoint, state_dict)
        load_whole(
            model, {key: value for key, value in state_dict.items() if not optional(key)}, optional
        )
    except UnfitLogits:
        raise
    except OtherChannels as error:
        raise UserError(
            f'teacher {checkpoint}: {error}; a teacher sees the same images as the student. '
            f'load_from={checkpoint!r} without a teacher (no --from-dense) starts from the rest'
        ) from error
    except ValueError as error:
        raise UserError(f'teacher {checkpoint}: {error}') from error
    if any(is_new(key) for key in state_dict):
        print_log(
            f'teacher {checkpoint} is of a sparse model: its token predictors and fast '
            'paths are not used, it runs dense',
            'current',
            logging.WARNING,
        )
