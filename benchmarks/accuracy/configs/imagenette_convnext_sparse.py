"""Imagenette, ConvNeXt with fast and slow paths, without a teacher."""

_base_ = './imagenette_sparse.py'

load_from = 'work_dirs/imagenette_convnext_pretrain/epoch_24.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='DynamicConvNeXt',
        arch=dict(depths=[2, 2, 6, 2], channels=[32, 64, 128, 256]),
        drop_path_rate=0.05,
        layer_scale_init_value=1.0,
        keep_ratios=0.7,
        mixing='two_stream',
    ),
    neck=None,
    head=dict(in_channels=256),
)
