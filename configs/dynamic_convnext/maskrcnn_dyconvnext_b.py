"""Mask R-CNN, DynamicConvNeXt-B, COCO, 1x.

python tools/train.py configs/dynamic_convnext/maskrcnn_dyconvnext_b.py
"""

_base_ = './maskrcnn_dyconvnext_t.py'

pretrained = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/convnext-base_3rdparty_32xb128-noema_in1k_20220301-2a0ee547.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.7, init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8, num_layers=12))
