"""Runs a model of any of the libraries and draws its decisions or semantic tokens."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
import torch.nn as nn
from mmengine.dataset import Compose, pseudo_collate

from .. import families
from ..configuration.read import leaf_datasets
from ..recording.recorder import record_decisions, record_semantic_attention
from .keep_maps import draw_decisions
from .panels import input_as_image
from .semantic_maps import draw_semantic_attention


class Painter(NamedTuple):
    """What is recorded of a backbone, and how its records become a picture.

    Attributes:
        backbone: The backbone.
        record: Context manager of a model that yields a list of records.
        draw: (image, records of one forward, index in the batch, content size) -> picture.
    """

    backbone: nn.Module
    record: Callable
    draw: Callable


def find_painter(model: nn.Module) -> Painter:
    """The painter of the model's first sparse backbone.

    Raises:
        ValueError: If the model takes no decisions and has no semantic tokens.
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
    raise ValueError(
        f'{type(model).__name__} takes no decisions and has no semantic tokens: its '
        'backbone is not one of this package, or dense (keep_ratios is None)'
    )


def image_batches(dataset: dict[str, Any], paths: Sequence[str]) -> Iterator[dict]:
    """Passes image files through a dataset config's pipeline, one image a batch.

    Steps that load annotations are left out.

    Args:
        dataset: Config of a dataset; inside wrappers the first innermost one gives the pipeline.
        paths: Image files.

    Raises:
        ValueError: For a file that is no image, naming it.
    """
    _, innermost = next(leaf_datasets(dataset))
    pipeline = Compose(
        [step for step in innermost['pipeline'] if 'Annotations' not in str(step['type'])]
    )
    for index, path in enumerate(paths):
        if cv2.imread(str(path)) is None:
            raise ValueError(f'image {path}: is not an image that OpenCV can read')
        yield pseudo_collate([pipeline(dict(img_path=str(path), img_id=index))])


@torch.no_grad()
def draw_batches(
    model: nn.Module, batches: Iterable[dict], out_dir: Path, count: int
) -> Iterator[Path]:
    """Draws the decisions, or the semantic tokens' attention, on the first images.

    Pictures have the images' names; where two images have the same, or one image is run through
    the network in parts (sliding windows, augmentation), a number is appended.

    Args:
        model: A detector, segmentor or classifier with a sparse backbone and a
            ``data_preprocessor``.
        batches: What its ``test_step`` takes.
        out_dir: Made if need be; existing pictures of the same names are replaced.
        count: How many images.

    Yields:
        The pictures' paths, as they are written.

    Raises:
        ValueError: If the model takes no decisions and has no semantic tokens.
    """
    painter = find_painter(model)
    model.eval()
    out_dir.mkdir(parents=True, exist_ok=True)
    names: Counter = Counter()
    drawn = 0
    for batch in batches:
        inputs: list[torch.Tensor] = []
        handle = painter.backbone.register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
        try:
            with painter.record(painter.backbone) as log:
                samples = model.test_step(batch)
        finally:
            handle.remove()
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
