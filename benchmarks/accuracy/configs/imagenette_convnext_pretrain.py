"""DynamicConvNeXt, dense, from scratch on Imagenette: 24 epochs, as the Swin of the same tables.

    python tools/train.py benchmarks/accuracy/configs/imagenette_convnext_pretrain.py

All channel mixing of its blocks is in the MLPs: its sparse stage has more to lose than the Swin's.
"""

_base_ = './imagenette_pretrain.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='DynamicConvNeXt',
        arch=dict(depths=[2, 2, 6, 2], channels=[32, 64, 128, 256]),
        drop_path_rate=0.05,
        # Layer scales of 1e-6 want longer schedules.
        layer_scale_init_value=1.0,
    ),
    neck=None,
    head=dict(in_channels=256),
)
