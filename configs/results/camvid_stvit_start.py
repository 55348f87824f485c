"""Semantic FPN on STViTSwin from Imagenette, CamVid, 40 epochs, as the dense network.

    python tools/train.py configs/results/camvid_stvit_start.py
"""
_base_ = './camvid_dense_start.py'

model = dict(
    backbone=dict(
        type='STViTSwin',
        init_cfg=dict(checkpoint='work_dirs/imagenette_stvit_pretrain/epoch_24.pth')))
