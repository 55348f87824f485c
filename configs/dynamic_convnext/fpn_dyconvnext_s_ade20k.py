"""Semantic FPN, DynamicConvNeXt-S, ADE20K, 80k iterations, crops of 512 (32 images a step).

tools/dist_train.sh configs/dynamic_convnext/fpn_dyconvnext_s_ade20k.py 8
"""

_base_ = './fpn_dyconvnext_t_ade20k.py'

pretrained = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/convnext-small_3rdparty_32xb128-noema_in1k_20220301-303e75e3.pth'
model = dict(backbone=dict(arch='small', drop_path_rate=0.3, init_cfg=dict(checkpoint=pretrained)))
