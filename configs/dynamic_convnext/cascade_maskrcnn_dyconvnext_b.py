"""Cascade Mask R-CNN, DynamicConvNeXt-B, COCO, 3x (36 epochs, 16 images a step).

    tools/dist_train.sh configs/dynamic_convnext/cascade_maskrcnn_dyconvnext_b.py 8

mmdet has sizes t and s; this is s with the rates of the ConvNeXt authors' size b.
"""

_base_ = './cascade_maskrcnn_dyconvnext_s.py'

pretrained = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/convnext-base_3rdparty_32xb128-noema_in1k_20220301-2a0ee547.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.7, init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
