"""Imagenette, ConvNeXt, dense, trained on as long as the sparse rows are."""
_base_ = './imagenette_dense.py'

load_from = 'work_dirs/imagenette_convnext_pretrain/epoch_24.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='DynamicConvNeXt',
        arch=dict(depths=[2, 2, 6, 2], channels=[32, 64, 128, 256]),
        drop_path_rate=0.05,
        layer_scale_init_value=1.0),
    neck=None,
    head=dict(in_channels=256))
