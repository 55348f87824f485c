"""Runs a model of any of the libraries and draws its decisions or semantic tokens."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
import torch.nn as nn
from mmengine.dataset import Compose, pseudo_collate
from torch import Tensor

from .. import families
from ..configuration.read import leaf_datasets
from ..configuration.types import type_name
from ..errors import UserError
from ..recording import Recorder, record_decisions, record_semantic_attention
from .keep_maps import draw_decisions
from .panels import input_as_image
from .semantic_maps import draw_semantic_attention


class Painter(NamedTuple):
    """How a backbone is recorded, and how its records become a picture.

    Attributes:
        backbone: Backbone that is recorded.
        record: Context manager of a model that yields a list of records.
        draw: Callable that makes a picture of an image, the records of one forward, the index in
            the batch and the size of the content.
    """

    backbone: nn.Module
    record: Callable
    draw: Callable


def find_painters(model: nn.Module) -> list[Painter]:
    """Finds the painters of the model's sparse backbones.

    Raises:
        UserError: If the model takes no decisions and has no semantic tokens.
    """
    painters = [painter for module in model.modules() if (painter := _painter_of(module))]
    if not painters:
        raise UserError(
            f'{type(model).__name__} takes no decisions and has no semantic tokens: its '
            'backbone is not one of this package, or dense (keep_ratios is None)'
        )
    return painters


def _painter_of(module: nn.Module) -> Painter | None:
    if families.takes_decisions(module):
        return Painter(
            module,
            record_decisions,
            lambda image, records, *place: draw_decisions(
                image, [record.decision for record in records], *place
            ),
        )
    card = families.of(module)
    if card is not None and card.semantic:
        return Painter(
            module,
            record_semantic_attention,
            lambda image, records, *place: draw_semantic_attention(
                image, [r for r in records if r.role != 'generate'], *place
            ),
        )
    return None


def image_batches(dataset: dict[str, Any], paths: Sequence[str]) -> Iterator[dict]:
    """Passes image files through a dataset config's pipeline, one image a batch.

    The pipeline's own loader reads them, and steps that load annotations are left out. The steps
    find what datasets give of an image without annotations: ``img_path``, ``img_id``,
    ``sample_idx``, and empty ``instances`` and ``seg_fields``.

    Args:
        dataset: Config of a dataset; inside wrappers the first innermost one gives the pipeline.
        paths: Image files.

    Raises:
        UserError: For a file that the pipeline does not take, naming it, the step and its reason.
    """
    _, innermost = next(leaf_datasets(dataset))
    steps = [step for step in innermost['pipeline'] if 'Annotations' not in type_name(step)]
    transforms = Compose(steps).transforms
    for index, path in enumerate(paths):
        data: Any = dict(
            img_path=str(path), img_id=index, sample_idx=index, instances=[], seg_fields=[]
        )
        for step, transform in zip(steps, transforms):
            name = type_name(step) or type(transform).__name__
            try:
                data = transform(data)
            except Exception as error:  # whatever a loader makes of a file that it cannot read
                raise UserError(
                    f'image {path}: {name} cannot take it ({_reason(error)})'
                ) from error
            if data is None:
                raise UserError(
                    f'image {path}: {name} gave nothing for it; it cannot be read, or is left out'
                )
        yield pseudo_collate([data])


def _reason(error: Exception) -> str:
    """An error in one line."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


@torch.no_grad()
def draw_batches(
    model: nn.Module, batches: Iterable[dict], out_dir: Path, count: int
) -> Iterator[Path]:
    """Draws the decisions, or the semantic tokens' attention, on the first images.

    Pictures have the images' names; where two images have the same, or one image is run through
    the network in pieces (sliding windows, augmentation), a number is appended.

    Args:
        model: Detector, segmentor or classifier with a sparse backbone and a
            ``data_preprocessor``.
        batches: Batches as its ``test_step`` takes them.
        out_dir: Folder of the pictures, made if need be; pictures of the same names are replaced.
        count: Number of images.

    Yields:
        The pictures' paths, as they are written.

    Raises:
        UserError: If the model takes no decisions and has no semantic tokens.
    """
    painters = find_painters(model)
    model.eval()
    out_dir.mkdir(parents=True, exist_ok=True)
    names: Counter = Counter()
    drawn = 0
    for batch in batches:
        painter, inputs, log, samples = _look(painters, model, batch)
        per_forward = len(log) // len(inputs)
        # One forward with one input an image is the usual case; only then is padding known.
        whole = len(inputs) == 1 and len(inputs[0]) == len(samples)
        for f, x in enumerate(inputs):
            records = log[f * per_forward : (f + 1) * per_forward]
            for i in range(min(len(x), count - drawn) if whole else len(x)):
                meta = samples[i if whole else min(i, len(samples) - 1)].metainfo
                content = tuple(meta.get('img_shape', (0, 0)))[:2] if whole else (0, 0)
                picture = painter.draw(
                    input_as_image(x[i], model.data_preprocessor), records, i, content
                )
                stem = Path(meta.get('img_path') or 'image').stem
                names[stem] += 1
                path = out_dir / (
                    f'{stem}.png' if names[stem] == 1 else f'{stem}_{names[stem]}.png'
                )
                cv2.imwrite(str(path), picture[..., ::-1])
                yield path
        drawn += len(samples)
        if drawn >= count:
            return


def _look(
    painters: Sequence[Painter], model: nn.Module, batch: dict
) -> tuple[Painter, list[Tensor], list, list]:
    """Runs a model: the painter whose backbone ran, its inputs and records, predictions.

    Of several, such as those of a student and of its averaged copy, the first that ran.
    """
    looks: list[tuple[Painter, list[Tensor], list]] = []
    with ExitStack() as stack:
        for painter in painters:
            inputs, note = _inputs_of()
            stack.enter_context(Recorder(painter.backbone, {painter.backbone: note}))
            looks.append((painter, inputs, stack.enter_context(painter.record(painter.backbone))))
        samples = model.test_step(batch)
    for painter, inputs, log in looks:
        if inputs:
            return painter, inputs, log, samples
    raise UserError(f'{type(model).__name__}: none of its sparse backbones runs when it predicts')


def _inputs_of() -> tuple[list[Tensor], Callable]:
    """A list, and a listener that adds the inputs of a module to it."""
    inputs: list[Tensor] = []

    def note(name: str, backbone: nn.Module, args: tuple, output: Any) -> None:
        inputs.append(args[0])

    return inputs, note
