"""Semantic FPN, DynamicConvNeXt-B, ADE20K, 80k iterations, crops of 512 (32 images a step).

tools/dist_train.sh configs/dynamic_convnext/fpn_dyconvnext_b_ade20k.py 8
"""

_base_ = './fpn_dyconvnext_t_ade20k.py'

pretrained = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/convnext-base_3rdparty_32xb128-noema_in1k_20220301-2a0ee547.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4, init_cfg=dict(checkpoint=pretrained)),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
