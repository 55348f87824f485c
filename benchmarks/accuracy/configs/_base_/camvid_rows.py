# All rows of CamVid: 12 epochs from the dense segmentor, pretrained parameters at 2e-4.
_base_ = './camvid11.py'

load_from = 'work_dirs/camvid_dense_start/epoch_40.pth'
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=1, end=12, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=12)
