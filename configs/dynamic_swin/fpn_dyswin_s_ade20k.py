"""Semantic FPN, DynamicSwin-S, ADE20K, 80k iterations, crops of 512 (32 images a step).

tools/dist_train.sh configs/dynamic_swin/fpn_dyswin_s_ade20k.py 8
"""

_base_ = './fpn_dyswin_t_ade20k.py'

pretrained = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/swin/swin_small_patch4_window7_224_20220317-7ba6d6dd.pth'
model = dict(backbone=dict(depths=[2, 2, 18, 2], init_cfg=dict(checkpoint=pretrained)))
