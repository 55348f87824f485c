"""Runs a model of any of the libraries and draws its decisions."""
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Sequence

import cv2
import torch
import torch.nn as nn
from mmengine.dataset import Compose, pseudo_collate

from ..backbones.sparse_backbone import SparseBackbone
from ..recording import record_decisions
from .keep_maps import draw_decisions, input_as_image


def image_batches(dataset: Dict[str, Any], paths: Sequence[str]) -> Iterator[Dict]:
    """Passes image files through a dataset config's pipeline, one image a batch.

    Steps that load annotations are left out.

    Args:
        dataset: Config of a dataset with a ``pipeline``; inside wrappers the innermost counts.
        paths: Image files.
    """
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    steps = [step for step in dataset['pipeline'] if 'Annotations' not in str(step['type'])]
    pipeline = Compose(steps)
    for index, path in enumerate(paths):
        yield pseudo_collate([pipeline(dict(img_path=str(path), img_id=index))])


@torch.no_grad()
def draw_batches(model: nn.Module, batches: Iterable[Dict], out_dir: Path,
                 count: int) -> List[Path]:
    """Draws the decisions on the first images.

    Args:
        model: A detector, segmentor or classifier with a sparse backbone and a
            ``data_preprocessor``.
        batches: What its ``test_step`` takes.
        out_dir: Made if need be; existing pictures of the same names are replaced.
        count: How many images.

    Returns:
        The pictures' paths.

    Raises:
        ValueError: If the model takes no decisions.
    """
    backbone = next((m for m in model.modules()
                     if isinstance(m, SparseBackbone) and m.keep_ratios), None)
    if backbone is None:
        raise ValueError(f'{type(model).__name__} takes no decisions: its backbone is not sparse '
                         '(keep_ratios is None)')
    model.eval()
    out_dir.mkdir(parents=True, exist_ok=True)
    paths: List[Path] = []
    for batch in islice(batches, count):
        inputs: List[torch.Tensor] = []
        handle = backbone.register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
        with record_decisions(backbone) as log:
            samples = model.test_step(batch)
        handle.remove()
        # Sliding windows and augmentation run the backbone several times on one image.
        per_forward = len(log) // len(inputs)
        for f, x in enumerate(inputs):
            decisions = log.decisions[f * per_forward:(f + 1) * per_forward]
            for i in range(len(x)):
                if len(paths) == count and len(inputs) == 1:
                    return paths
                meta = samples[min(i, len(samples) - 1)].metainfo
                whole = len(inputs) == 1 and len(x) == len(samples)
                content = tuple(meta.get('img_shape', (0, 0)))[:2] if whole else (0, 0)
                picture = draw_decisions(input_as_image(x[i], model.data_preprocessor), decisions,
                                         i, content)
                stem = Path(meta.get('img_path') or f'image{len(paths)}').stem
                path = out_dir / (f'{stem}.png' if whole else f'{stem}_{f}_{i}.png')
                cv2.imwrite(str(path), picture[..., ::-1])
                paths.append(path)
    return paths
