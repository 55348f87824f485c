# All rows of the nuclei: 4 epochs from the dense detector, pretrained parameters at 2e-4.
_base_ = './dsb2018.py'

load_from = 'work_dirs/dsb2018_dense_start/epoch_12.pth'
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, end=20, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=20, end=240, by_epoch=False),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4)
