"""The libraries' inferencers take our configs and checkpoints, in an interpreter of their own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
START = '''
import sys
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
config, folder = sys.argv[1:]
cfg = Config.fromfile(config)
init_default_scope(cfg.default_scope)
image = folder + '/image.png'


def save(models, meta):
    """A checkpoint as the runner writes it, of random weights."""
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    cfg.model.backbone.init_cfg = None
    model = models.build(cfg.model)
    weights = model.state_dict()
    path = folder + '/weights.pth'
    torch.save(dict(meta=dict(dataset_meta=meta, cfg=cfg.pretty_text), state_dict=weights), path)
    return path
'''
DETECT = (
    START
    + """
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
import mmdet.models
names, palette = tuple(map(str, range(80))), [(i, i, i) for i in range(80)]
path = save(MODELS, dict(classes=names, palette=palette))
inferencer = DetInferencer(config, path, device='cpu')
backbone = inferencer.model.backbone
result = inferencer([image, image], out_dir=folder + '/out', pred_score_thr=0.0)
assert len(result['predictions']) == 2 and 'masks' in result['predictions'][0]
assert len(list(__import__('pathlib').Path(folder, 'out/vis').iterdir())) == 1
"""
)
SEGMENT = (
    START
    + """
from mmseg.apis import MMSegInferencer
from mmseg.registry import MODELS
import mmseg.models
names, palette = list(map(str, range(150))), [[i, i, i] for i in range(150)]
path = save(MODELS, dict(classes=names, palette=palette))
inferencer = MMSegInferencer(config, path, classes=names, palette=palette, device='cpu')
backbone = inferencer.model.backbone
result = inferencer([image, image])
assert [len(p) for p in result['predictions']] == [48, 48]
"""
)
CLASSIFY = (
    START
    + """
from mmpretrain.apis import ImageClassificationInferencer
from mmpretrain.registry import MODELS
import mmpretrain.models
path = save(MODELS, dict(classes=tuple(map(str, range(1000)))))
inferencer = ImageClassificationInferencer(config, pretrained=path, device='cpu')
backbone = inferencer.model.backbone
result = inferencer([image, image], batch_size=2)
assert len(result) == 2 and result[0]['pred_class'] in map(str, range(1000))
"""
)
END = """
print(type(backbone).__name__, backbone.keep_ratios)
assert torch.equal(backbone.state_dict()['token_predictors.0.proj.weight'],
                   torch.load(path)['state_dict']['backbone.token_predictors.0.proj.weight'])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'code,config',
    [
        (DETECT, 'maskrcnn_dyswin_t'),
        (SEGMENT, 'upernet_dyconvnext_t_ade20k'),
        (CLASSIFY, 'cls_dyswin_t_in1k'),
    ],
    ids=['det', 'seg', 'cls'],
)
def test_inferencer(code, config, tmp_path):
    import cv2

    cv2.imwrite(
        str(tmp_path / 'image.png'),
        np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8),
    )
    done = subprocess.run(
        [sys.executable, '-c', code + END, f'{ROOT}/configs/{config}.py', str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    family = 'DynamicConvNeXt' if 'convnext' in config else 'DynamicSwin'
    assert done.stdout.strip().splitlines()[-1] == f'{family} (0.7, 0.5, 0.3)'
