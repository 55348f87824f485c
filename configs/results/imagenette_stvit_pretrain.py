"""STViTSwin at the reduced width, from scratch as the dense network: 24 epochs.

    python tools/train.py configs/results/imagenette_stvit_pretrain.py
"""
_base_ = './imagenette_pretrain.py'

model = dict(backbone=dict(type='STViTSwin'))
