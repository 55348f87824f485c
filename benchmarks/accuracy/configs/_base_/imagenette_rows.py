# All rows of Imagenette: 4 epochs from the dense classifier, pretrained parameters at 2e-4.
_base_ = './imagenette112.py'

load_from = 'work_dirs/imagenette_pretrain/epoch_24.pth'
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, end=100, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=100, end=588, by_epoch=False),
]
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=4)
