"""Semantic FPN, DynamicSwin-B, ADE20K, 80k iterations, crops of 512 (32 images a step).

tools/dist_train.sh configs/dynamic_swin/fpn_dyswin_b_ade20k.py 8
"""

_base_ = './fpn_dyswin_t_ade20k.py'

pretrained = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/swin/swin_base_patch4_window7_224_20220317-e9b98025.pth'
model = dict(
    backbone=dict(
        embed_dims=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
