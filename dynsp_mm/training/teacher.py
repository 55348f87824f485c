"""The frozen dense network that a sparse one learns from."""
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from ..checkpoints import load_from_anywhere, load_whole
from ..config_tree import read_config, without_pretrained
from ..recording import BackboneCall, record_maps

KEYS = ('checkpoint', 'config')


class Outputs(NamedTuple):
    """What is compared of teacher and student.

    Attributes:
        maps: Normalised maps of the backbone, each (B, C_i, H_i, W_i).
        logits: (B, K) of a classifier, (B, K, H, W) of a segmentor; None if not asked for.
    """
    maps: Tuple[Tensor, ...]
    logits: Optional[Tensor]


def logit_layer(model: nn.Module) -> Optional[nn.Module]:
    """The module whose output are the logits of a classifier or segmentor, None in others.

    That is the head of an mmpretrain classifier and ``conv_seg`` of the (last) decode head of an
    mmseg segmentor. Detectors have no logits per image or position, nor have segmentors that
    classify masks.
    """
    head = getattr(model, 'decode_head', None)
    if isinstance(head, nn.ModuleList) and len(head):
        head = head[-1]
    if isinstance(head, nn.Module):
        layer = getattr(head, 'conv_seg', None)
    else:
        layer = getattr(model, 'head', None)
    return layer if isinstance(layer, nn.Module) else None


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
        self.calls: List[BackboneCall] = []
        self.logits: Optional[Tensor] = None

    def __enter__(self) -> 'OutputRecorder':
        self.logits = None
        self._maps = record_maps(self.backbone)
        self.calls = self._maps.__enter__()
        self._handle = self.layer and self.layer.register_forward_hook(self._keep_logits)
        return self

    def __exit__(self, *error) -> None:
        self._maps.__exit__(*error)
        if self._handle:
            self._handle.remove()

    def take(self) -> Tuple[List[BackboneCall], Optional[Tensor]]:
        """Calls and logits, which are then forgotten: they hold the graph of a forward."""
        taken = self.calls, self.logits
        self.calls, self.logits = [], None
        return taken

    def _keep_logits(self, module: nn.Module, args: tuple, output: Any) -> None:
        self.logits = output


def dense_config(model_cfg: Mapping) -> Dict[str, Any]:
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
    wrappers do not see it.

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

    def __init__(self, spec: Union[str, Mapping], student_cfg: Optional[Config], backbone: str,
                 logits: bool):
        spec = self.parse(spec)
        cfg = self._read_config(spec, student_cfg)
        scope = cfg.get('default_scope') or (student_cfg or Config()).get('default_scope')
        with DefaultScope.overwrite_default_scope(scope):
            model = MODELS.build(without_pretrained(dense_config(cfg.model)))
        try:
            inner = model.get_submodule(backbone)
        except AttributeError:
            raise ValueError(f'teacher: {type(model).__name__} has no {backbone}, which is the '
                             "student's backbone") from None
        if logits and logit_layer(model) is None:
            raise ValueError(f'teacher: {type(model).__name__} has no logits to learn from; set '
                             'logit_weight=0')
        self._load(model, spec['checkpoint'], backbone, logits)
        self.name = spec['checkpoint']
        # Detectors hold much that only maps do not need.
        self.model = model if logits else inner
        self.model.eval()  # returns nothing in some classes of the libraries
        self.model.requires_grad_(False)
        self._recorder = OutputRecorder(self.model, backbone if logits else '', logits)

    @staticmethod
    def parse(spec: Union[str, Mapping]) -> Dict[str, Any]:
        """Checks a ``teacher`` argument and gives it as a dict with checkpoint and config.

        Raises:
            ValueError: For anything but a file name or a dict of these.
        """
        if isinstance(spec, str) and spec:
            return dict(checkpoint=spec, config=None)
        if not isinstance(spec, Mapping) or set(spec) - set(KEYS) or not spec.get('checkpoint') \
                or not isinstance(spec['checkpoint'], str) \
                or not isinstance(spec.get('config'), (str, Mapping, type(None))):
            raise ValueError(f'teacher={spec!r}: must be the checkpoint of the dense model, or '
                             "dict(checkpoint=FILE, config=the dense model's config file or dict)")
        return dict(checkpoint=spec['checkpoint'], config=spec.get('config'))

    @staticmethod
    def _read_config(spec: Mapping, student_cfg: Optional[Config]) -> Config:
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
            raise ValueError(f'teacher: {source} has no model; give '
                             'teacher=dict(checkpoint=FILE, config=CONFIG)')
        return cfg

    @staticmethod
    def _load(model: nn.Module, checkpoint: str, backbone: str, logits: bool) -> None:
        def optional(name: str) -> bool:
            if logits:
                return name.startswith('auxiliary_head')
            return not name.startswith(f'{backbone}.')

        try:
            state_dict = load_from_anywhere(checkpoint)['state_dict']
            if not logits:  # heads may be for other classes
                state_dict = {key: value for key, value in state_dict.items()
                              if not optional(key)}
            load_whole(model, state_dict, optional)
        except ValueError as error:
            raise ValueError(f'teacher {checkpoint}: {error}') from error

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
