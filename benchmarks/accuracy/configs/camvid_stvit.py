"""CamVid, STViTSwin from the dense network's weights: 24 epochs at 5e-4, as more is new in it."""

_base_ = './_base_/camvid_rows.py'

model = dict(backbone=dict(type='STViTSwin'))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=1, end=24, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=24)
