"""Mask R-CNN on the dense network from Imagenette, nuclei, 12 epochs. Where the rows start.

python tools/train.py benchmarks/accuracy/configs/dsb2018_dense_start.py
"""

_base_ = './_base_/dsb2018.py'

model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/imagenette_pretrain/epoch_24.pth')
    )
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=1, end=12, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12)
randomness = dict(seed=0)
