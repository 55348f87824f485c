"""Measures candidates in one setting: speed in turns, multiply-adds, memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModel
from torch import Tensor

from ..analysis import count_macs, held_memory, machine, peak_memory_of, time_in_turns
from ..analysis.latency import synchronizer
from ..analysis.measurements import Measurement
from ..analysis.steps import decides, inference_step, training_step
from ..errors import UserError
from .candidates import Candidate, build_alike, make_ready


class Setting(NamedTuple):
    """What all candidates are measured in.

    Attributes:
        part: 'backbone' or 'model'.
        batch: Number of images.
        size: Height and width of the images in pixels.
        dtype: Key of :data:`machine.DTYPES`.
    """

    part: str
    batch: int
    size: tuple[int, int]
    dtype: str

    def __str__(self):
        height, width = self.size
        return f'{self.part}, batch {self.batch}, {height} x {width}, {self.dtype}'


class Run(NamedTuple):
    """A candidate ready to be timed.

    Attributes:
        candidate: The network.
        name: Name of the step, as :class:`Measurement` has it.
        step: What is timed.
        macs: Multiply-adds of the backbone's forward, per image.
        held_bytes: Weights and buffers of what is measured.
        backend: Backend with which the backbone is prepared; None if it is not.
    """

    candidate: Candidate
    name: str
    step: Callable[[], Any]
    macs: int
    held_bytes: int
    backend: str | None


@dataclass
class Measurer:
    """Measures the same candidates in one setting after the other.

    Attributes:
        candidates: Networks to compare; the first is the baseline.
        device: Device to measure on.
        rounds: Least number of timed rounds.
        warmup: Number of rounds before them.
        min_time: Seconds that timed rounds go on for at least.
        train: Whether training steps are measured, else inference.
        teacher: Whether sparse candidates learn from a teacher.
        compiled: Whether torch.compile gets the backbones.
        autocast: Whether reduced precision is autocast for backbones, too.
        backend: Backend to prepare backbones with; None prepares nothing.
        release_weights: Whether prepared backbones let go of weights.
        weights: State dict of a checkpoint, for what fits of each candidate.
    """

    candidates: Sequence[Candidate]
    device: torch.device
    rounds: int = 20
    warmup: int = 3
    min_time: float = 0.0
    train: bool = False
    teacher: bool = False
    compiled: bool = False
    autocast: bool = False
    backend: str | None = 'auto'
    release_weights: bool = False
    weights: Mapping[str, Tensor] | None = None

    def check_models(self) -> None:
        """Raises a :class:`UserError` if a candidate is no whole model."""
        for candidate in self.candidates:
            if candidate.named:
                raise UserError(f'{candidate.label} is a backbone: --part model needs configs')

    def measure(self, setting: Setting) -> list[Measurement]:
        """A measurement of each candidate; :func:`share` fills its ``rate_share``.

        Raises:
            UserError: A candidate cannot be built, or none has the teacher that was asked for.
            RuntimeError: Memory does not suffice, or an operator lacks the dtype.
        """
        models = build_alike(
            self.candidates,
            setting.part,
            setting.batch,
            setting.size,
            self.device,
            self.train,
            self.weights,
        )
        runs = [
            self._make_run(setting, candidate, model, batch)
            for candidate, (model, batch) in zip(self.candidates, models)
        ]
        if self.teacher and not any(run.name == 'training with teacher' for run in runs):
            raise UserError('--teacher: no candidate is sparse, so none has a teacher')
        timings = time_in_turns(
            [run.step for run in runs],
            self.rounds,
            self.warmup,
            self.min_time,
            synchronizer(self.device),
        )
        return [self._row(setting, run, timing, runs[0].macs) for run, timing in zip(runs, timings)]

    def _make_run(
        self, setting: Setting, candidate: Candidate, model: BaseModel, batch: dict[str, Any]
    ) -> Run:
        macs = count_macs(model.backbone, batch['inputs']) // setting.batch
        prepare = self._prepare_training if self.train else self._prepare_inference
        name, backend, make_step = prepare(setting, candidate, model, batch)
        held = held_memory(model.backbone if setting.part == 'backbone' else model)
        if self.compiled:
            model.backbone = torch.compile(model.backbone)
        return Run(candidate, name, make_step(), macs, held, backend)

    def _prepare_training(self, setting, candidate, model, batch):
        """(name of the step, backend, function that makes the step)."""
        taught = self.teacher and decides(model)
        dtype, teacher_cfg = machine.DTYPES[setting.dtype], candidate.model_cfg if taught else None
        return (
            'training with teacher' if taught else 'training',
            None,
            lambda: training_step(model, batch, self.device, dtype, teacher_cfg),
        )

    def _prepare_inference(self, setting, candidate, model, batch):
        """(name of the step, backend, function that makes the step)."""
        dtype = machine.DTYPES[setting.dtype]
        backend = make_ready(
            model,
            batch,
            setting.part,
            dtype,
            self.autocast,
            None if self.compiled else self.backend,
            self.release_weights,
        )
        # What is cast already needs no autocast.
        autocast = torch.float32 if batch['inputs'].dtype == dtype else dtype
        return 'inference', backend, lambda: inference_step(model, batch, self.device, autocast)

    def _row(self, setting, run, timing, baseline_macs) -> Measurement:
        return Measurement(
            part=setting.part,
            step=run.name,
            compiled=self.compiled,
            batch=setting.batch,
            height=setting.size[0],
            width=setting.size[1],
            dtype=setting.dtype,
            candidate=run.candidate.label,
            images_per_s=setting.batch / timing.seconds,
            median_s=timing.seconds,
            ratio=timing.ratio,
            ratio_p20=timing.ratio_p20,
            ratio_p80=timing.ratio_p80,
            rounds=timing.rounds,
            macs=run.macs,
            macs_ratio=run.macs / baseline_macs if baseline_macs else None,
            peak_bytes=peak_memory_of(run.step, self.device),
            backend=run.backend,
            held_bytes=run.held_bytes,
        )


def share(row: Measurement, rates: Mapping[str, float]) -> Measurement:
    """The measurement with the share of the rate of large products that it reached."""
    # Only there the counted multiply-adds are all that ran.
    if row.part == 'backbone' and row.step == 'inference':
        row = row._replace(rate_share=row.macs * row.images_per_s / rates[row.dtype])
    return row
