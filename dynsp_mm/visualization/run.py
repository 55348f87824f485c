"""Runs a model of any of the libraries and draws its decisions or semantic tokens."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
import torch.nn as nn
from mmengine.dataset import Compose, pseudo_collate
from torch import Tensor

from .. import families
from ..configuration.read import leaf_datasets
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


def find_painter(model: nn.Module) -> Painter:
    """Finds the painter of the model's first sparse backbone.

    Raises:
        UserError: If the model takes no decisions and has no semantic tokens.
    """
    for module in model.modules():
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
    raise UserError(
        f'{type(model).__name__} takes no decisions and has no semantic tokens: its '
        'backbone is not one of this package, or dense (keep_ratios is None)'
    )


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
    steps = [step for step in innermost['pipeline'] if 'Annotations' not in _name(step)]
    names, transforms = [_name(step) for step in steps], Compose(steps).transforms
    for index, path in enumerate(paths):
        data: Any = dict(
            img_path=str(path), img_id=index, sample_idx=index, instances=[], seg_fields=[]
        )
        for name, transform in zip(names, transforms):
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


def _name(step: dict[str, Any] | Callable) -> str:
    """Name of a pipeline's step, given by a config or as what it is."""
    kind = step['type'] if isinstance(step, dict) else step
    return kind if isinstance(kind, str) else getattr(kind, '__name__', type(kind).__name__)


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
    painter = find_painter(model)
    model.eval()
    out_dir.mkdir(parents=True, exist_ok=True)
    names: Counter = Counter()
    drawn = 0
    for batch in batches:
        inputs, log, samples = _look(painter, model, batch)
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


def _look(painter: Painter, model: nn.Module, batch: dict) -> tuple[list[Tensor], list, list]:
    """Runs a model: inputs of the painter's backbone, what was recorded of it, predictions."""
    inputs: list[Tensor] = []

    def note(name: str, backbone: nn.Module, args: tuple, output: Any) -> None:
        inputs.append(args[0])

    backbone = painter.backbone
    with Recorder(backbone, {backbone: note}), painter.record(backbone) as log:
        samples = model.test_step(batch)
    return inputs, log, samples
