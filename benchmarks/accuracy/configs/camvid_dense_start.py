"""Semantic FPN on the dense network from Imagenette, CamVid, 40 epochs. Where CamVid's rows start.

python tools/train.py benchmarks/accuracy/configs/camvid_dense_start.py
"""

_base_ = './_base_/camvid11.py'

model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/imagenette_pretrain/epoch_24.pth')
    )
)

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=6e-4, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=2, end=40, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=40)
randomness = dict(seed=0)
