"""Segmentation configs: what they take from mmseg, whole and sliding inference, mIoU."""

import importlib
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from config_files import ROOT, load
from mmengine.registry import init_default_scope

from dynsp_mm import record_decisions

# Those with teachers: test_teachers.py.
CONFIGS = sorted((ROOT / 'configs').glob('*_dy*_ade20k.py'))
TYPES = dict(dyswin='DynamicSwin', dyconvnext='DynamicConvNeXt')
SCALE = dict(t='tiny', s='small', b='base')
WIDTH = dict(t=96, s=96, b=128)
DEPTH = dict(dyswin=dict(t=6, s=18, b=18), dyconvnext=dict(t=9, s=27, b=27))


def test_all_are_there():
    names = {path.stem for path in CONFIGS}
    assert names == {
        f'{head}_{family}_{size}_ade20k'
        for head in ('upernet', 'fpn')
        for family in TYPES
        for size in 'tsb'
    } | {f'mask2former_dyswin_{size}_ade20k' for size in 'tsb'}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_what_all_share(path):
    config = load(path.stem)
    head, family, size, _ = path.stem.split('_')
    model, backbone = config.model, config.model.backbone
    assert config.default_scope == 'mmseg' and model.type == 'EncoderDecoder'
    assert backbone.type == TYPES[family] and backbone.keep_ratios == 0.7
    assert list(backbone.out_indices) == [0, 1, 2, 3]
    assert backbone.init_cfg.type == 'Pretrained' and SCALE[size] in backbone.init_cfg.checkpoint
    if family == 'dyswin':
        assert (backbone.embed_dims, backbone.depths[2]) == (WIDTH[size], DEPTH[family][size])
    else:
        assert backbone.arch == SCALE[size]
    first = model.neck if head == 'fpn' else model.decode_head
    assert first.in_channels == [WIDTH[size] * 2**i for i in range(4)]
    if head == 'upernet':
        assert model.auxiliary_head.in_channels == WIDTH[size] * 4
    assert all(model[key].num_classes == 150 for key in model if key.endswith('_head'))
    assert [hook['type'] for hook in config.custom_hooks] == ['SpatialSparsityHook']
    assert 'dynsp_mm' in config.custom_imports.imports
    for loader in (config.train_dataloader, config.val_dataloader):
        assert loader.dataset.type == 'ADE20KDataset'
        assert loader.dataset.data_root == 'data/ade/ADEChallengeData2016'
    assert config.test_evaluator == dict(type='IoUMetric', iou_metrics=['mIoU'])
    assert config.optim_wrapper.optimizer.type == 'AdamW'
    iterations = dict(upernet=160000, mask2former=160000, fpn=80000)[head]
    assert config.train_cfg.max_iters == iterations == config.param_scheduler[-1].end
    assert config.train_dataloader.batch_size == (4 if head == 'fpn' else 2)


@pytest.mark.parametrize('size,drop_path,layers', [('t', 0.4, 6), ('s', 0.3, 12), ('b', 0.4, 12)])
def test_upernet_with_convnext_is_the_published_recipe(size, drop_path, layers):
    config = load(f'upernet_dyconvnext_{size}_ade20k')
    assert config.model.backbone.drop_path_rate == drop_path
    assert config.model.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
    wrapper = config.optim_wrapper
    assert wrapper.type == 'AmpOptimWrapper' and wrapper.optimizer.lr == 1e-4
    assert wrapper.constructor == 'LearningRateDecayOptimizerConstructor'
    assert wrapper.paramwise_cfg == dict(decay_rate=0.9, decay_type='stage_wise', num_layers=layers)


@pytest.mark.parametrize('size', 'tsb')
def test_semantic_fpn_takes_its_backbone_from_upernet(size):
    for family in TYPES:
        fpn = load(f'fpn_{family}_{size}_ade20k')
        upernet = load(f'upernet_{family}_{size}_ade20k').model.backbone
        for backbone in (fpn.model.backbone, upernet):  # releases of mmseg name different servers
            backbone.init_cfg.checkpoint = backbone.init_cfg.checkpoint.rsplit('/')[-1]
        for key in fpn.model.backbone:
            assert fpn.model.backbone[key] == upernet[key], key
        assert fpn.model.decode_head.type == 'FPNHead' and 'auxiliary_head' not in fpn.model
        optimizer = fpn.optim_wrapper.optimizer
        assert (optimizer.lr, optimizer.weight_decay) == (1e-4, 1e-4)


def test_mask2former_keeps_the_rates_of_the_backbone():
    for size, crop in (('t', 512), ('s', 512), ('b', 640)):
        config = load(f'mask2former_dyswin_{size}_ade20k')
        assert config.model.decode_head.type == 'Mask2FormerHead'
        assert config.model.data_preprocessor.size == (crop, crop)
        keys = config.optim_wrapper.paramwise_cfg.custom_keys
        assert keys['backbone'].lr_mult == 0.1
        last = DEPTH['dyswin'][size] - 1
        assert keys[f'backbone.stages.2.blocks.{last}.norm'].decay_mult == 0.0


# ------------------------------------------------------------------ whole and slide
SMALL = dict(
    dyswin=dict(embed_dims=16, depths=[1, 1, 4, 1], num_heads=[1, 1, 2, 4], init_cfg=None),
    dyconvnext=dict(
        arch=dict(_delete_=True, depths=[1, 1, 4, 1], channels=[16, 32, 64, 128]), init_cfg=None
    ),
)
HEADS = dict(
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=16),
    auxiliary_head=dict(in_channels=64, channels=16),
)


def build(name, **model):
    """A config's model with the small backbone and other parts changed."""
    from mmseg.registry import MODELS

    importlib.import_module('mmseg.models')
    init_default_scope('mmseg')
    config = load(name)
    config.merge_from_dict(dict(model=dict(backbone=SMALL['dyswin'], **model)))
    model = MODELS.build(config.model)
    model.init_weights()
    return model.eval()


@pytest.fixture
def segmentor():
    """UPerNet of 16 channels with predictors at random."""
    return build('upernet_dyswin_t_ade20k', **HEADS)


def segment(model, image):
    """Scores (150, H, W) of one image and the decisions on the way."""
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=image.shape[1:], ori_shape=image.shape[1:]))
    with torch.no_grad(), record_decisions(model) as log:
        (result,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
    height, width = image.shape[1:]
    assert result.pred_sem_seg.data.shape == (1, height, width)
    assert result.seg_logits.data.shape == (150, height, width)
    return result.seg_logits.data, log.decisions


def test_whole_image_of_any_size(segmentor):
    _, decisions = segment(segmentor, torch.randint(0, 256, (3, 90, 134), dtype=torch.uint8))
    assert [decision.hw for decision in decisions] == [(6, 9)] * 3
    assert [int(d.keep.sum()) for d in decisions] == [int(54 * r) for r in (0.7, 0.5, 0.3)]


def test_each_sliding_window_has_its_own_decisions(segmentor):
    image = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)
    segmentor.test_cfg.update(mode='slide', crop_size=(64, 64), stride=(32, 32))
    scores, decisions = segment(segmentor, image)
    corners = [(y, x) for y in (0, 32) for x in (0, 32, 64)]
    assert [decision.hw for decision in decisions] == [(4, 4)] * 3 * len(corners)
    expected, count = torch.zeros_like(scores), torch.zeros(96, 128)
    segmentor.test_cfg.update(mode='whole')
    for i, (y, x) in enumerate(corners):
        window, alone = segment(segmentor, image[:, y : y + 64, x : x + 64])
        for slid, own, ratio in zip(decisions[3 * i :], alone, (0.7, 0.5, 0.3)):
            assert torch.equal(slid.keep, own.keep) and int(own.keep.sum()) == int(16 * ratio)
        expected[:, y : y + 64, x : x + 64] += window
        count[y : y + 64, x : x + 64] += 1
    assert torch.allclose(scores, expected / count, atol=1e-5)
    # The windows do not all keep the same places.
    assert len({tuple(d.keep.flatten().tolist()) for d in decisions[::3]}) > 1


def test_one_window_over_all_is_the_whole_image(segmentor):
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    whole, _ = segment(segmentor, image)
    segmentor.test_cfg.update(mode='slide', crop_size=(512, 512), stride=(341, 341))
    slid, _ = segment(segmentor, image)
    assert torch.equal(whole, slid)


def test_mask2former_slides_without_padding():
    model = build(
        'mask2former_dyswin_t_ade20k',
        data_preprocessor=dict(test_cfg=None),
        decode_head=dict(in_channels=[16, 32, 64, 128], num_queries=5),
    )
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    _, decisions = segment(model, image)
    assert [decision.hw for decision in decisions] == [(4, 6)] * 3
    model.test_cfg.update(mode='slide', crop_size=(64, 64), stride=(32, 32))
    _, decisions = segment(model, image)
    assert [decision.hw for decision in decisions] == [(4, 4)] * 6


# ------------------------------------------------------------------ the tools
DERIVED = """
_base_ = '{root}/configs/upernet_dyconvnext_t_ade20k.py'
model = dict(backbone={backbone}, data_preprocessor=dict(size=(64, 64)),
             decode_head=dict({decode}, num_classes=3),
             auxiliary_head=dict({auxiliary}, num_classes=3))
dataset = dict(
    _delete_=True, type='BaseSegDataset', reduce_zero_label=True, data_root='{data}',
    metainfo=dict(classes=('dark', 'middle', 'bright'), palette=[[0] * 3, [99] * 3, [200] * 3]),
    data_prefix=dict(img_path='images', seg_map_path='annotations'),
    pipeline=[dict(type='LoadImageFromFile'),
              dict(type='LoadAnnotations', reduce_zero_label=True), dict(type='PackSegInputs')])
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.mark.slow
def test_the_tools_report_miou(tmp_path):
    """ConvNeXt's recipe without its mixed precision, which needs an accelerator."""
    rng = np.random.default_rng(0)
    for folder in ('images', 'annotations'):
        (tmp_path / folder).mkdir()
    for i in range(2):
        labels = np.repeat(rng.integers(0, 3, (4, 6)), 16, 0).repeat(16, 1).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f'images/{i}.jpg'), np.stack([labels * 100] * 3, -1))
        cv2.imwrite(str(tmp_path / f'annotations/{i}.png'), labels + 1)
    config, work_dir = tmp_path / 'config.py', tmp_path / 'work'
    config.write_text(
        DERIVED.format(
            root=ROOT,
            data=tmp_path,
            backbone=SMALL['dyconvnext'],
            **{
                key: ', '.join(f'{k}={v}' for k, v in HEADS[f'{key}_head'].items())
                for key in ('decode', 'auxiliary')
            },
        )
    )

    def tool(name, *args):
        done = subprocess.run(
            [sys.executable, ROOT / 'tools' / name, *args],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found = re.findall(r'mIoU: ([\d.]+)', done.stdout + done.stderr)
        return done.stdout + done.stderr, float(found[-1])

    log, trained = tool(
        'train.py',
        config,
        '--work-dir',
        work_dir,
        '--cfg-options',
        'optim_wrapper.type=OptimWrapper',
    )
    assert log.count('loss_keep_ratio') == 3
    arguments = ('test.py', config, work_dir / 'iter_3.pth', '--work-dir', work_dir / 'test')
    assert tool(*arguments)[1] == trained
    _, slid = tool(
        *arguments,
        '--cfg-options',
        'model.test_cfg.crop_size=(32,32)',
        'model.test_cfg.stride=(16,16)',
    )
    assert 0 <= slid <= 100
