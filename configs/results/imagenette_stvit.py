"""Imagenette, STViTSwin from the dense network's weights: 8 epochs at 5e-4, as more is new."""
_base_ = './_base_/imagenette_rows.py'

model = dict(backbone=dict(type='STViTSwin'))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, end=100, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=100, end=1176, by_epoch=False)
]
train_cfg = dict(max_epochs=8, val_interval=8)
