"""The dense network from scratch on Imagenette: 24 epochs. Where all rows of RESULTS.md start.

python tools/train.py benchmarks/accuracy/configs/imagenette_pretrain.py
"""

_base_ = './_base_/imagenette112.py'

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=2, end=24, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=24, val_interval=4)
randomness = dict(seed=0)
