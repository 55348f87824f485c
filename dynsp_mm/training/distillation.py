"""Learning from a dense teacher: which outputs are compared, and with which weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Real

import torch
import torch.nn as nn
from torch import Tensor

from .losses import logit_distillation_loss, map_distillation_loss
from .teacher import OutputRecorder, Outputs, Teacher, classifies_by_softmax, logit_layer

DEFAULT_WEIGHT = 0.5  # of both terms in the code of arXiv 2207.01580
# Pixels: the image on which teacher and student are compared beforehand. No multiple of 32, since
# networks differ in whether they round maps up or down.
PROBE = (232, 264)


def check_weight(name: str, value: float) -> float:
    """Raises ValueError unless a loss weight is a finite number >= 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < float('inf'):
        raise ValueError(f'{name}={value!r}: must be a number >= 0')
    return float(value)


def parse_map_weight(value: None | float | Sequence[float]) -> float | tuple[float, ...]:
    """Checks a ``map_weight`` argument: a number, or one for each level; None is the default.

    Raises:
        ValueError: For anything else, such as a negative number.
    """
    if value is None:
        return DEFAULT_WEIGHT
    if not isinstance(value, (list, tuple)):
        return check_weight('map_weight', value)
    if not value:
        raise ValueError(f'map_weight={value!r}: needs a number, or one for each map')
    return tuple(check_weight(f'map_weight[{i}]', weight) for i, weight in enumerate(value))


def has_weight(map_weight: float | tuple[float, ...]) -> bool:
    """Whether a parsed ``map_weight`` switches any map on."""
    return any(map_weight) if isinstance(map_weight, tuple) else map_weight > 0


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients, for a look at a model that is about to train."""
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
        teacher: The dense network.
        map_weight: Weight of each map's mean squared difference, or a weight for each map; maps
            are the backbone's normalised outputs, from fine to coarse.
        logit_weight: Weight of the logits' KL divergence.

    Raises:
        ValueError: If teacher and student compute maps or logits of different sizes on the same
            image, or there is another number of weights than of maps.
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
            raise ValueError(
                f'map_weight={map_weight!r}: needs one weight for each of the {count} '
                'maps of the backbone'
            )
        self.map_weights = map_weight if isinstance(map_weight, tuple) else (map_weight,) * count
        if any(self.map_weights):
            self._compare('maps', ours.maps, theirs.maps)
        if logit_weight:
            self._compare('logits', (ours.logits,), (theirs.logits,))

    @staticmethod
    def logit_weight_of(student: nn.Module, value: float | None) -> float:
        """A ``logit_weight`` argument; None is 0.5 where softmax makes classes of logits, else 0.

        Raises:
            ValueError: If it is positive and there are none.
        """
        if value is None:
            return DEFAULT_WEIGHT if classifies_by_softmax(student) else 0.0
        if value and logit_layer(student) is None:
            raise ValueError(
                f'logit_weight={value!r}: {type(student).__name__} has no logits for '
                'an image or its positions to compare; set it to 0'
            )
        return value

    def _probe(self, student: nn.Module) -> tuple[Outputs, Outputs]:
        """What both compute for an image of zeros."""
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
            raise ValueError(
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
                )
                or 'none'
            )

        tensors = all(isinstance(output, Tensor) for output in (*ours, *theirs))
        if not tensors or shapes(ours) != shapes(theirs):
            raise ValueError(
                f"teacher {self.teacher.name}: its {name} do not match the student's: on an image "
                f'of {PROBE[0]} x {PROBE[1]} it computes {shapes(theirs)}, the student '
                f'{shapes(ours)}' + ('; logit_weight=0 leaves them out' if name == 'logits' else '')
            )
        if name == 'logits' and ours[0].shape[1] < 2:
            raise ValueError(
                'logit_weight: there is one logit only, so no distribution over '
                'classes to compare; set logit_weight=0'
            )

    def losses(self) -> dict[str, Tensor]:
        """Weighted losses of what the recorder holds: a term for each map, one for the logits.

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
