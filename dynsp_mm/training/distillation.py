"""Learning from a dense teacher: which outputs are compared, and with which weights."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from ..errors import UserError, check_number
from ..recording import OutputRecorder, classifies_by_softmax, logit_layer
from .losses import logit_distillation_loss, map_distillation_loss
from .teacher import OtherClasses, Outputs, Teacher, TeacherSpec, UnfitLogits

DEFAULT_WEIGHT = 0.5  # of both terms in the code of arXiv 2207.01580
# Pixels: the image on which teacher and student are compared beforehand. No multiple of 32, since
# networks differ in whether they round maps up or down.
PROBE = (232, 264)


def parse_map_weight(value: None | float | Sequence[float]) -> float | tuple[float, ...]:
    """Checks a ``map_weight`` argument: a number, or one for each level; None is the default.

    Raises:
        UserError: For anything else, such as a negative number.
    """
    if value is None:
        return DEFAULT_WEIGHT
    if not isinstance(value, (list, tuple)):
        return float(check_number('map_weight', value, low=0))
    if not value:
        raise UserError(f'map_weight={value!r}: needs a number, or one for each map')
    return tuple(
        float(check_number(f'map_weight[{i}]', weight, low=0)) for i, weight in enumerate(value)
    )


def has_weight(map_weight: float | tuple[float, ...]) -> bool:
    """Tells whether a parsed ``map_weight`` switches any map on."""
    return any(map_weight) if isinstance(map_weight, tuple) else map_weight > 0


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model that is about to train into eval mode, without gradients, for a look at it."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class Distillation:
    """Compares a student's outputs with those of its teacher on the same images.

    Args:
        student: Detector, segmentor or classifier, without wrapper.
        backbone: Name of its sparse backbone's module.
        teacher: Dense network.
        map_weight: Weight of each map's mean squared difference, or a weight for each map; maps
            are the backbone's normalised outputs, from fine to coarse.
        logit_weight: Weight of the logits' KL divergence.

    Raises:
        UserError: Teacher and student compute maps or logits of different sizes on the same image,
            or there is another number of weights than of maps.
    """

    def __init__(
        self,
        student: nn.Module,
        backbone: str,
        teacher: Teacher,
        map_weight: float | tuple[float, ...],
        logit_weight: float,
    ):
        self.teacher = teacher
        self.logit_weight = logit_weight
        self.recorder = OutputRecorder(student, backbone, logits=logit_weight > 0)
        ours, theirs = self._probe(student)
        count = len(ours.maps)
        if isinstance(map_weight, tuple) and len(map_weight) != count:
            raise UserError(
                f'map_weight={map_weight!r}: needs one weight for each of the {count} '
                'maps of the backbone'
            )
        self.map_weights = map_weight if isinstance(map_weight, tuple) else (map_weight,) * count
        if any(self.map_weights):
            self._compare('maps', ours.maps, theirs.maps)
        if logit_weight:
            self._compare('logits', (ours.logits,), (theirs.logits,))

    @classmethod
    def build(
        cls,
        student: nn.Module,
        backbones: Sequence[str],
        spec: TeacherSpec,
        cfg: Config | None,
        map_weight: float | tuple[float, ...],
        logit_weight: float | None,
    ) -> 'Distillation | None':
        """Gets a student its teacher; None where no term has a weight.

        Args:
            student: Detector, segmentor or classifier, without wrapper.
            backbones: Names of its sparse backbones' modules.
            spec: Description of the teacher.
            cfg: Config of the student, for a teacher that is given by its checkpoint alone.
            map_weight: Weight of each map, or a weight for each map.
            logit_weight: Weight of the logits; None for the model's default.

        Raises:
            UserError: There is no teacher as asked for, several backbones would learn from it, or
                it does not fit the student. Logits that are for other classes or that a model does
                not compute are left out, and that is said, where ``logit_weight`` is None.
        """
        weight = cls.logit_weight_of(student, logit_weight)
        if not weight and not has_weight(map_weight):
            return None
        if len(backbones) > 1:
            raise UserError(
                f'teacher: {type(student).__name__} has {len(backbones)} sparse '
                f'backbones ({", ".join(backbones)}); one can learn from a teacher'
            )
        if spec.model is not None:
            own = {id(parameter) for parameter in student.parameters()}
            if any(id(parameter) in own for parameter in spec.model.parameters()):
                raise UserError(
                    f'teacher: {spec.name} shares parameters with the model that trains; '
                    'give a copy of its own'
                )
        try:
            teacher = Teacher.from_spec(spec, cfg, backbones[0], logits=weight > 0)
            return cls(student, backbones[0], teacher, map_weight, weight)
        except UnfitLogits as error:
            if logit_weight is not None or not has_weight(map_weight):
                raise
            reason = error
        teacher = Teacher.from_spec(spec, cfg, backbones[0], logits=False)
        distillation = cls(student, backbones[0], teacher, map_weight, 0.0)
        print_log(
            f'{reason}, and so does the default here: only maps are compared'
            + (
                '. A teacher for the classes of the data, teacher=dict(checkpoint=FILE, '
                'config=CONFIG), would give logits'
                if isinstance(reason, OtherClasses)
                else ''
            ),
            'current',
            logging.WARNING,
        )
        return distillation

    @staticmethod
    def logit_weight_of(student: nn.Module, value: float | None) -> float:
        """Resolves ``logit_weight``: None is 0.5 where softmax makes classes of logits, else 0.

        Raises:
            UserError: It is positive and there are none.
        """
        if value is None:
            return DEFAULT_WEIGHT if classifies_by_softmax(student) else 0.0
        if value and logit_layer(student) is None:
            raise UserError(
                f'logit_weight={value!r}: {type(student).__name__} has no logits for '
                'an image or its positions to compare; set it to 0'
            )
        return value

    def _probe(self, student: nn.Module) -> tuple[Outputs, Outputs]:
        """Computes the outputs of both for an image of zeros."""
        backbone = self.recorder.backbone
        parameter = next(backbone.parameters())
        image = parameter.new_zeros(1, backbone.in_channels, *PROBE)
        with _evaluating(student), self.recorder as recorder:
            if recorder.layer is None:
                backbone(image)
            else:
                student(image, mode='tensor')
        calls, logits = recorder.take()
        self.teacher.follow(parameter)
        try:
            theirs = self.teacher(image)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f'teacher {self.teacher.name}: cannot look at an image of '
                f'{PROBE[0]} x {PROBE[1]}: {error}'
            ) from error
        return Outputs(calls[-1].maps, logits), theirs

    def _compare(self, name: str, ours: Sequence, theirs: Sequence) -> None:
        def shapes(outputs: Sequence) -> str:
            # Only channels and strides are the network's; the batch is the probe's.
            return (
                ', '.join(
                    str(tuple(output.shape[1:]))
                    if isinstance(output, Tensor)
                    else type(output).__name__
                    for output in outputs
                    if output is not None
                )
                or 'none'
            )

        def fault(theirs: str, ours: str) -> str:
            return (
                f"teacher {self.teacher.name}: its {name} do not match the student's: on an image "
                f'of {PROBE[0]} x {PROBE[1]} it computes {theirs}, the student {ours}'
            )

        tensors = all(isinstance(output, Tensor) for output in (*ours, *theirs))
        if name == 'logits' and tensors and ours[0].shape[1] != theirs[0].shape[1]:
            counts = (output.shape[1] for output in (theirs[0], ours[0]))
            raise OtherClasses(
                self.teacher.name, 'they are {} at a position, the student has {}'.format(*counts)
            )
        if name == 'logits' and not tensors:
            raise UnfitLogits(fault(shapes(theirs), shapes(ours)))
        if not tensors or shapes(ours) != shapes(theirs):
            way_on = f'; {UnfitLogits.WAY_ON}' if name == 'logits' else ''
            raise UserError(fault(shapes(theirs), shapes(ours)) + way_on)
        if name == 'logits' and ours[0].shape[1] < 2:
            raise UserError(
                'logit_weight: there is one logit only, so no distribution over '
                f'classes to compare; {UnfitLogits.WAY_ON}'
            )

    def losses(self) -> dict[str, Tensor]:
        """Computes weighted losses of what was recorded: a term for each map, one for the logits.

        Maps of a backbone that was called several times are averaged over calls.
        """
        calls, logits = self.recorder.take()
        self.teacher.follow(next(self.recorder.backbone.parameters()))
        outputs = [self.teacher(call.image) for call in calls]
        losses: dict[str, Tensor] = {}
        for level, weight in enumerate(self.map_weights):
            if weight and calls:
                terms = [
                    map_distillation_loss(call.maps[level], output.maps[level])
                    for call, output in zip(calls, outputs)
                ]
                losses[f'loss_distill_map_{level}'] = weight * torch.stack(terms).mean()
        if self.logit_weight and calls:
            losses['loss_distill_logits'] = self.logit_weight * logit_distillation_loss(
                logits, outputs[-1].logits
            )
        return losses
