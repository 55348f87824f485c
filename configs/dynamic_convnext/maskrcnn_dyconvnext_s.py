"""Mask R-CNN, DynamicConvNeXt-S, COCO, 1x.

python tools/train.py configs/dynamic_convnext/maskrcnn_dyconvnext_s.py
"""

_base_ = './maskrcnn_dyconvnext_t.py'

pretrained = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/convnext-small_3rdparty_32xb128-noema_in1k_20220301-303e75e3.pth'
model = dict(backbone=dict(arch='small', drop_path_rate=0.6, init_cfg=dict(checkpoint=pretrained)))
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.7, num_layers=12))
