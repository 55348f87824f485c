"""The tools as a user runs them, on tiny data: train, kill, resume, test, draw."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hostile import Hostile
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import get_installed_path

from dynsp_mm import DynamicSwin, STViTSwin
from dynsp_mm.checkpoints import write_checkpoint
from dynsp_mm.tooling.datasets.synthetic_coco import CLASSES, generate

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

CONFIG = """
_base_ = '{root}/configs/maskrcnn_{family}_t.py'
data_root = '{data}/'
metainfo = dict(classes={classes})
model = dict(
    backbone={backbone},
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(num_classes=4, in_channels=32, fc_out_channels=64),
        mask_roi_extractor=dict(out_channels=32),
        mask_head=dict(num_classes=4, in_channels=32, conv_out_channels=32)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=100, max_per_img=50)),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50), rcnn=dict(score_thr=0.0)))
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root=data_root, metainfo=metainfo))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root=data_root, metainfo=metainfo))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
"""
BACKBONES = dict(
    dyswin='dict(embed_dims=16, depths=[1, 1, 4, 1], num_heads=[1, 1, 2, 4], init_cfg=None)',
    dyconvnext='dict(arch=dict(_delete_=True, depths=[1, 1, 4, 1], channels=[16, 32, 64, 128]), '
    'init_cfg=None)',
    stvit_swin='dict(embed_dims=16, depths=[1, 1, 6, 1], num_heads=[1, 1, 2, 4], init_cfg=None)',
)


def tool(name, *args, check=True, **kwargs):
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / name), *map(str, args)],
        capture_output=True,
        text=True,
        **kwargs,
    )
    if check:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return generate(tmp_path_factory.mktemp('coco') / 'data', num_train=6, num_val=2)


def write_config(folder, data, family):
    path = folder / f'{family}.py'
    path.write_text(
        CONFIG.format(
            root=ROOT, data=data, classes=CLASSES, family=family, backbone=BACKBONES[family]
        )
    )
    return path


def train_log(work_dir):
    """All logged training steps of a work directory, oldest run first."""
    steps = []
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        steps += [json.loads(line) for line in file.read_text().splitlines()]
    return [step for step in steps if 'loss' in step]


@pytest.mark.parametrize('family', BACKBONES)
def test_mask_rcnn_trains_and_evaluates(family, data, tmp_path):
    config, work_dir = write_config(tmp_path, data, family), tmp_path / 'work'
    tool('train.py', config, '--work-dir', work_dir, cwd=tmp_path)
    steps, sparse = train_log(work_dir), family.startswith('dy')
    assert len(steps) == 6  # 6 images, 2 a step, 2 epochs
    expected = ['loss_rpn_cls', 'loss_cls', 'loss_bbox', 'loss_mask']
    if sparse:
        expected += ['loss_keep_ratio', 'keep_ratio_0', 'keep_ratio_1', 'keep_ratio_2']
    for step in steps:
        for key in expected:
            assert 0 <= step[key] < 1e3, (key, step)
    assert any(step['loss_mask'] > 0 for step in steps)  # masks were not ignored
    checkpoint = work_dir / 'epoch_2.pth'
    keys = torch.load(checkpoint, weights_only=False)['state_dict']
    assert any(('token_predictors.0' if sparse else 'layer_scale_1') in key for key in keys)

    pickled = tmp_path / 'out.pkl'
    done = tool(
        'test.py',
        config,
        checkpoint,
        '--work-dir',
        tmp_path / 'test',
        '--out',
        pickled,
        '--show-dir',
        tmp_path / 'shown',
        '--cfg-options',
        'model.backbone.keep_ratios=(0.9,0.6,0.5)' if sparse else 'model.backbone.pad_mask=release',
        cwd=tmp_path,
    )
    assert re.search(r'coco/segm_mAP: \d', done.stdout + done.stderr)
    assert pickled.stat().st_size > 0 and len(list((tmp_path / 'shown').glob('*.png'))) == 2

    images = sorted(Path(data, 'val2017').iterdir())
    for extra, count in (((), 2), (('--images', images[0]), 1)):
        out = tmp_path / f'maps{count}'
        done = tool(
            'analysis_tools/visualize_decisions.py',
            config,
            checkpoint,
            '--out-dir',
            out,
            *extra,
            cwd=tmp_path,
        )
        assert len(list(out.iterdir())) == count
        assert set(done.stdout.split('\n')) >= {str(p) for p in out.iterdir()}


def kill_after_a_checkpoint(command, work_dir, cwd):
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=cwd,
        start_new_session=True,
    )
    deadline = time.time() + 300
    while not (work_dir / 'last_checkpoint').exists() and time.time() < deadline:
        assert process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_run_is_resumed(data, tmp_path):
    config, work_dir = write_config(tmp_path, data, 'dyswin'), tmp_path / 'work'
    command = [
        sys.executable,
        str(ROOT / 'tools/train.py'),
        str(config),
        '--work-dir',
        str(work_dir),
        '--cfg-options',
        'train_cfg.max_epochs=4',
        'randomness.seed=0',
    ]
    kill_after_a_checkpoint(command, work_dir, tmp_path)
    before = len(train_log(work_dir))
    assert before < 12
    resumed = subprocess.run([*command, '--resume'], capture_output=True, text=True, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert 'resumed epoch: ' in resumed.stdout + resumed.stderr
    steps = [step['step'] for step in train_log(work_dir)]
    assert steps[-1] == 12 and len(steps) < before + 12
    assert (work_dir / 'epoch_4.pth').exists()


def test_dense_checkpoint_of_the_library_loads_as_it_is(data, tmp_path):
    """A dense mmdet detector's checkpoint starts a sparse training with load_from."""
    config = write_config(tmp_path, data, 'dyswin')
    dense = tmp_path / 'dense.py'
    dense.write_text(
        config.read_text().replace(
            'backbone=dict(',
            "backbone=dict(type='SwinTransformer', _delete_=True, out_indices=(0, 1, 2, 3), ",
        )
        + 'custom_hooks = []\ntrain_cfg = dict(max_epochs=1)\n'
    )
    tool('train.py', dense, '--work-dir', tmp_path / 'dense', cwd=tmp_path)
    done = tool(
        'train.py',
        config,
        '--work-dir',
        tmp_path / 'sparse',
        '--cfg-options',
        f'load_from={tmp_path}/dense/epoch_1.pth',
        'train_cfg.max_epochs=1',
        cwd=tmp_path,
    )
    text = done.stdout + done.stderr
    assert 'Load checkpoint from' in text
    missing = text.split('missing keys in source state_dict:')[1].split('\n')[0]
    assert all('token_predictors' in k or 'fast_path' in k for k in missing.split(','))
    # Without a config of its own: the dense one, made sparse on the command line.
    before = dense.read_text()
    done = tool(
        'train.py',
        dense,
        '--sparse',
        '0.7',
        '--work-dir',
        tmp_path / 'swapped',
        '--cfg-options',
        f'load_from={tmp_path}/dense/epoch_1.pth',
        cwd=tmp_path,
    )
    assert 'keep_ratio_2' in train_log(tmp_path / 'swapped')[-1]
    tool(
        'test.py',
        dense,
        tmp_path / 'swapped/epoch_1.pth',
        '--sparse',
        '0.6,0.5,0.3',
        '--work-dir',
        tmp_path / 'w',
        cwd=tmp_path,
    )
    assert dense.read_text() == before
    done = tool(
        'train.py',
        dense,
        '--sparse',
        '1.5',
        '--work-dir',
        tmp_path / 'w',
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and done.stderr.strip().startswith(
        'ERROR: --sparse 1.5: keep_ratios=1.5'
    )


def test_a_dense_detector_becomes_sparse_with_itself_as_teacher(data, tmp_path):
    """The guide's three steps, a killed run among them, until DetInferencer."""
    dense, work_dir = write_config(tmp_path, data, 'dyswin'), tmp_path / 'work'
    dense.write_text(
        dense.read_text() + 'model["backbone"].update(keep_ratios=None)\n'
        'custom_hooks = []\ntrain_cfg = dict(max_epochs=1)\n'
    )
    tool('train.py', dense, '--work-dir', tmp_path / 'dense', cwd=tmp_path)
    checkpoint = tmp_path / 'dense/epoch_1.pth'
    options = (
        '--cfg-options',
        'train_cfg.max_epochs=2',
        'randomness.seed=0',
        'optim_wrapper.constructor=SpatialSparsityOptimWrapperConstructor',
    )
    command = [
        sys.executable,
        str(ROOT / 'tools/train.py'),
        str(dense),
        '--sparse',
        '0.7',
        '--from-dense',
        str(checkpoint),
        '--work-dir',
        str(work_dir),
        *options,
    ]
    kill_after_a_checkpoint(command, work_dir, tmp_path)
    resumed = subprocess.run([*command, '--resume'], capture_output=True, text=True, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert f'SpatialSparsityHook: teacher {checkpoint}' in resumed.stdout + resumed.stderr
    for step in train_log(work_dir):
        for level in range(4):
            assert 0 <= step[f'loss_distill_map_{level}'] < 1e3
    # Maps before the sparse stage are the teacher's at first.
    assert train_log(work_dir)[0]['loss_distill_map_0'] < 1e-3
    student = torch.load(work_dir / 'epoch_2.pth', weights_only=False)['state_dict']
    plain = Config.fromfile(dense)
    plain.model.backbone.keep_ratios = 0.7
    init_default_scope('mmdet')
    MODELS.build(plain.model).load_state_dict(student, strict=True)
    plain.dump(tmp_path / 'plain.py')
    inferencer = DetInferencer(
        str(tmp_path / 'plain.py'), str(work_dir / 'epoch_2.pth'), device='cpu'
    )
    image = sorted(Path(data, 'val2017').iterdir())[0]
    assert len(inferencer(str(image))['predictions']) == 1
    assert inferencer.model.backbone.keep_ratios == (0.7, 0.5, 0.3)

    for teacher, text in (
        (tmp_path / 'gone.pth', '--from-dense'),
        (work_dir / 'epoch_2.pth', None),
    ):
        done = tool(
            'train.py',
            dense,
            '--sparse',
            '0.7',
            '--from-dense',
            teacher,
            '--work-dir',
            tmp_path / 'w',
            '--cfg-options',
            'train_cfg.max_epochs=1',
            check=False,
            cwd=tmp_path,
        )
        if text is None:  # a sparse checkpoint has the dense network's weights, too
            assert done.returncode == 0, done.stderr[-2000:]
        else:
            assert done.returncode == 2
            assert done.stderr.strip() == f'ERROR: {text} {teacher} does not exist'


def test_tools_check_what_they_load(data, tmp_path):
    """.safetensors serves; files that run code, damaged ones and other networks are one line."""
    config = write_config(tmp_path, data, 'stvit_swin')
    model = STViTSwin(
        embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 4), out_indices=(0, 1, 2, 3)
    )
    weights = {'backbone.' + k: v for k, v in model.state_dict().items()}
    init_default_scope('mmdet')
    detector = MODELS.build(Config.fromfile(config).model)
    write_checkpoint({**detector.state_dict(), **weights}, 'test', tmp_path / 'good.safetensors')
    image = sorted(Path(data, 'val2017').iterdir())[0]
    tool(
        'test.py', config, tmp_path / 'good.safetensors', '--work-dir', tmp_path / 'w', cwd=tmp_path
    )
    draw = ('analysis_tools/visualize_decisions.py', config)
    rest = ('--images', image, '--out-dir', tmp_path / 'maps')
    # What the training started from need not be there any more.
    tool(
        *draw,
        tmp_path / 'good.safetensors',
        *rest,
        '--cfg-options',
        'load_from=gone.pth',
        'resume=True',
        cwd=tmp_path,
    )
    shutil.rmtree(tmp_path / 'maps')

    ran = tmp_path / 'ran'
    torch.save(dict(state_dict=weights, meta=Hostile(str(ran))), tmp_path / 'evil.pth')
    (tmp_path / 'text.pth').write_text('hi')
    other = DynamicSwin(embed_dims=16, depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 4))
    torch.save(
        dict(
            state_dict={
                'backbone.' + k: v for k, v in other.state_dict().items() if 'stages.2' not in k
            }
        ),
        tmp_path / 'other.pth',
    )
    torch.save(dict(state_dict={'fc.weight': torch.ones(1)}), tmp_path / 'none.pth')
    # Another detector, and one for other classes.
    torch.save(dict(state_dict=weights), tmp_path / 'headless.pth')
    classes = {
        key: torch.cat([value, value]) if 'fc_cls' in key else value
        for key, value in detector.state_dict().items()
    }
    torch.save(dict(state_dict=classes), tmp_path / 'classes.pth')
    for name, text in (
        ('headless', 'tensors that this MaskRCNN needs are not there, such as neck.'),
        (
            'classes',
            '2 tensors have another size in this MaskRCNN: size mismatch for '
            'roi_head.bbox_head.fc_cls.weight',
        ),
    ):
        done = tool(
            'test.py',
            config,
            tmp_path / f'{name}.pth',
            '--work-dir',
            tmp_path / 'w',
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 2, done.stderr[-2000:]
        assert text in done.stderr.strip().splitlines()[-1]
    for name, text in (
        ('evil', 'was not read: it holds'),
        ('text', 'is damaged or no checkpoint'),
        ('other', 'another arch than this STViTSwin'),
        ('none', 'no weights for this STViTSwin'),
    ):
        path = tmp_path / f'{name}.pth'
        for command in (
            ('test.py', config, path, '--work-dir', tmp_path / 'w'),
            (*draw, path, *rest),
        ):
            done = tool(*command, check=False, cwd=tmp_path)
            assert done.returncode == 2, done.stderr[-2000:]
            line = done.stderr.strip().splitlines()[-1]
            assert line.startswith('ERROR: ') and text in line
    done = tool(
        'train.py',
        config,
        '--work-dir',
        tmp_path / 'w',
        '--cfg-options',
        f'load_from={tmp_path}/other.pth',
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and 'another arch than this STViTSwin' in done.stderr
    assert not ran.exists() and not (tmp_path / 'maps').exists()


@pytest.mark.parametrize(
    'spoil,text',
    [
        (lambda data: None, 'data/coco'),
        (
            lambda data: (data / 'annotations/instances_train2017.json').write_text('{"images": ['),
            'is not JSON',
        ),
        (
            lambda data: (data / 'annotations/instances_train2017.json').write_text(
                '{"images": [], "annotations": []}'
            ),
            "lacks 'categories'",
        ),
    ],
)
def test_bad_data_is_one_line(spoil, text, tmp_path):
    if text == 'data/coco':
        config = ROOT / 'configs/maskrcnn_dyswin_t.py'
    else:
        data = generate(tmp_path / 'data', num_train=2, num_val=1)
        spoil(data)
        config = write_config(tmp_path, data, 'dyswin')
    done = tool('train.py', config, '--work-dir', tmp_path / 'work', check=False, cwd=tmp_path)
    assert done.returncode == 2
    error = [line for line in done.stderr.splitlines() if line.startswith('ERROR: ')]
    assert len(error) == 1 and text in error[0], done.stderr[-2000:]
    assert 'Traceback' not in done.stderr


def test_bad_ratio_on_the_command_line(data, tmp_path):
    done = tool(
        'train.py',
        write_config(tmp_path, data, 'dyswin'),
        '--work-dir',
        tmp_path / 'w',
        '--cfg-options',
        'model.backbone.keep_ratios=(0.7,1.5,0.3)',
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        'ERROR: keep_ratios=(0.7, 1.5, 0.3): each ratio must lie in (0, 1]; got 1.5 at position 1'
    )


CLASSIFIER = """
_base_ = ['mmpretrain::_base_/models/swin_transformer/tiny_224.py',
          'mmpretrain::_base_/default_runtime.py', '{root}/configs/_base_/sparse_training.py']
model = dict(
    backbone=dict({backbone}, img_size=64, arch=dict(
        _delete_=True, embed_dims=16, depths=[1, 1, 6, 1], num_heads=[1, 1, 2, 4])),
    head=dict(num_classes=2, in_channels=128), train_cfg=None)
data_preprocessor = dict(num_classes=2, mean=[127.5] * 3, std=[60.0] * 3, to_rgb=True)
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)),
            dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=3, num_workers=0, persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='{data}', pipeline=pipeline))
test_dataloader = dict(train_dataloader, sampler=dict(type='DefaultSampler', shuffle=False))
val_dataloader = test_dataloader
test_evaluator = dict(type='Accuracy')
val_evaluator = test_evaluator
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
custom_hooks = [dict(type='EMAHook'), *{hooks}]
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(logger=dict(interval=1))
"""
SEGMENTOR = """
_base_ = ['mmseg::_base_/models/fpn_r50.py', 'mmseg::_base_/default_runtime.py',
          '{root}/configs/_base_/sparse_training.py']
norm_cfg = dict(type='BN')
data_preprocessor = dict(size=(64, 64))
model = dict(
    data_preprocessor=data_preprocessor, pretrained=None,
    backbone=dict({backbone}, _delete_=True, out_indices=[0, 1, 2, 3]),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    decode_head=dict(in_channels=[32] * 4, channels=32, num_classes=2, norm_cfg=norm_cfg))
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='Resize', scale=(64, 64)), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='BaseSegDataset', data_root='{data}', pipeline=pipeline,
                 metainfo=dict(classes=('ground', 'thing'), palette=[(0, 0, 0), (255, 0, 0)]),
                 data_prefix=dict(img_path='img', seg_map_path='ann')))
# Label maps are evaluated at their own size: loaded after resizing.
test_dataloader = dict(
    train_dataloader, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(train_dataloader['dataset'], pipeline=[pipeline[k] for k in (0, 2, 1, 3)]))
val_dataloader = test_dataloader
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
val_evaluator = test_evaluator
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(logger=dict(type='LoggerHook', interval=1),
                     visualization=dict(type='SegVisualizationHook'))
custom_hooks = {hooks}
"""
# Library and backbone -> config, backbone, hooks, metric.
HOOKS = '_base_.custom_hooks'
OTHERS = {
    'mmpretrain-dyswin': (
        CLASSIFIER,
        "type='DynamicSwin', keep_ratios=0.7",
        HOOKS,
        'accuracy/top1',
    ),
    'mmpretrain-stvit': (
        CLASSIFIER,
        "type='STViTSwin', form='classification'",
        [],
        'accuracy/top1',
    ),
    'mmseg-dyconvnext': (
        SEGMENTOR,
        "type='DynamicConvNeXt', keep_ratios=0.7, "
        'arch=dict(depths=[1, 1, 4, 1], channels=[16, 32, 64, 128]), '
        'gap_before_final_norm=False',
        HOOKS,
        'mIoU',
    ),
    'mmseg-stvit': (
        SEGMENTOR,
        "type='STViTSwin', embed_dims=16, depths=[1, 1, 6, 1], num_heads=[1, 1, 2, 4]",
        [],
        'mIoU',
    ),
}


def write_pictures(folder):
    """Six pictures, half of them with a bright square, as class folders and with label maps."""
    rng = np.random.default_rng(0)
    for name in ('dark', 'bright', 'img', 'ann'):
        (folder / name).mkdir()
    for i in range(6):
        image, label = rng.integers(0, 90, (70, 80, 3), np.uint8), np.zeros((70, 80), np.uint8)
        if i % 2:
            image[20:50, 20:60] = 230
            label[20:50, 20:60] = 1
        cv2.imwrite(str(folder / ('bright' if i % 2 else 'dark') / f'{i}.jpg'), image)
        cv2.imwrite(str(folder / 'img' / f'{i}.jpg'), image)
        cv2.imwrite(str(folder / 'ann' / f'{i}.png'), label)


@pytest.mark.parametrize('which', OTHERS)
def test_the_same_tools_serve_the_other_libraries(which, tmp_path):
    template, backbone, hooks, metric = OTHERS[which]
    data = tmp_path / 'data'
    data.mkdir()
    write_pictures(data)
    if template is CLASSIFIER:
        for name in ('img', 'ann'):
            shutil.rmtree(data / name)
    config, work_dir = tmp_path / 'net.py', tmp_path / 'work'
    config.write_text(template.format(root=ROOT, data=data, backbone=backbone, hooks=hooks))
    tool('train.py', config, '--work-dir', work_dir, cwd=tmp_path)
    steps = train_log(work_dir)
    assert len(steps) == 2
    if hooks:
        assert all({'loss_keep_ratio', 'keep_ratio_0', 'keep_ratio_2'} <= set(s) for s in steps)
    done = tool(
        'test.py', config, work_dir / 'epoch_1.pth', '--work-dir', tmp_path / 'test', cwd=tmp_path
    )
    assert metric in done.stdout + done.stderr
    done = tool(
        'analysis_tools/visualize_decisions.py',
        config,
        work_dir / 'epoch_1.pth',
        '--num',
        '6',
        '--out-dir',
        tmp_path / 'maps',
        cwd=tmp_path,
    )
    assert len(list((tmp_path / 'maps').iterdir())) == done.stdout.count('.png') == 6


@pytest.mark.parametrize('library', ['mmseg', 'mmpretrain'])
def test_the_tools_of_the_libraries_take_our_configs(library, tmp_path):
    template, backbone, hooks, metric = next(
        row for which, row in OTHERS.items() if which.startswith(library) and row[2]
    )
    write_pictures(tmp_path)
    if library == 'mmpretrain':
        for name in ('img', 'ann'):
            shutil.rmtree(tmp_path / name)
    text = template.format(root=ROOT, data=tmp_path, backbone=backbone, hooks=hooks)
    # Nothing else imports the package before the base is read.
    config = tmp_path / 'net.py'
    config.write_text(
        re.sub(r"'mm(seg|pretrain)::[^']+'", r"__import__('dynsp_mm').config(\g<0>)", text)
    )
    train = Path(get_installed_path(library), '.mim/tools/train.py')
    tool(train, config, '--work-dir', tmp_path / 'work', cwd=tmp_path)
    steps = train_log(tmp_path / 'work')
    assert len(steps) == 2 and all('keep_ratio_2' in step for step in steps)
    done = tool(
        train.with_name('test.py'),
        config,
        tmp_path / 'work/epoch_1.pth',
        '--work-dir',
        tmp_path / 'test',
        cwd=tmp_path,
    )
    assert metric in done.stdout + done.stderr
