"""Small models of the libraries with sparse backbones, and their dense teachers."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import nn
from toys import SWIN

from dynsp_mm import SpatialSparsityHook

CONVNEXT = dict(
    type='DynamicConvNeXt',
    keep_ratios=(0.7, 0.5, 0.3),
    arch=dict(depths=(1, 1, 4, 1), channels=(16, 32, 64, 128)),
)


def classifier(backbone=SWIN, classes=5):
    pooled = backbone['type'] == 'DynamicConvNeXt'
    return dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=None if pooled else dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=classes, in_channels=128),
    )


def segmentor(backbone=SWIN, classes=5):
    return dict(
        type='EncoderDecoder',
        backbone=dict(backbone, out_indices=(0, 1, 2, 3)),
        decode_head=dict(
            type='FCNHead',
            in_channels=128,
            in_index=3,
            channels=8,
            num_convs=1,
            num_classes=classes,
            dropout_ratio=0.0,
        ),
        auxiliary_head=dict(
            type='FCNHead', in_channels=64, in_index=2, channels=8, num_convs=1, num_classes=classes
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


def detector(backbone=SWIN, channels=(16, 32, 64, 128)):
    return dict(
        type='SingleStageDetector',
        backbone=dict(backbone, out_indices=(0, 1, 2, 3)),
        neck=dict(type='FPN', in_channels=list(channels), out_channels=16, num_outs=5),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=3,
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[1.0],
                strides=[4, 8, 16, 32, 64],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        ),
        train_cfg=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
    )


SCOPES = dict(ImageClassifier='mmpretrain', EncoderDecoder='mmseg', SingleStageDetector='mmdet')


def config(model):
    init_default_scope(SCOPES[model['type']])
    __import__(f'{SCOPES[model["type"]]}.models')
    return Config(dict(model=model, default_scope=SCOPES[model['type']]))


def built(model):
    cfg = config(model)
    return MODELS.build(cfg.model), cfg


def samples(model, count=2):
    if isinstance(model, str):
        kind = model
    else:
        kind = type(model).__name__
    result = []
    for i in range(count):
        if kind == 'ImageClassifier':
            from mmpretrain.structures import DataSample

            sample = DataSample().set_gt_label(i)
        elif kind == 'EncoderDecoder':
            from mmseg.structures import SegDataSample

            sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
            sample.gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, 64, 64)))
        else:
            from mmdet.structures import DetDataSample
            from mmengine.structures import InstanceData

            sample = DetDataSample(
                metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64))
            )
            sample.gt_instances = InstanceData(
                bboxes=torch.tensor([[4.0, 4, 30, 30]]), labels=torch.tensor([i])
            )
        result.append(sample)
    return result


def dense_checkpoint(tmp_path, model, name='dense.pth', cut=''):
    """A dense model like a sparse one, with random weights, as a training run saves it."""
    model = copy.deepcopy(model)
    model['backbone'] = dict(model['backbone'], keep_ratios=None)
    dense, _ = built(model)
    for parameter in dense.parameters():
        nn.init.normal_(parameter, std=0.1)
    path = tmp_path / name
    torch.save(
        dict(
            state_dict={
                k: v for k, v in dense.state_dict().items() if not cut or k.startswith(cut)
            },
            meta={},
        ),
        path,
    )
    return dense.eval(), str(path)


def attached(model, teacher, **kwargs):
    student, cfg = built(model)
    hook = SpatialSparsityHook(teacher=teacher, **kwargs)
    hook.attach(student.train(), cfg)
    return student, hook


def refusal(model, teacher, **kwargs):
    with pytest.raises(ValueError) as error:
        attached(model, teacher, **kwargs)
    return str(error.value)
