"""Semantic FPN, DynamicSwin-T, ADE20K, 80k iterations, crops of 512 (32 images a step).

    tools/dist_train.sh configs/dynamic_swin/fpn_dyswin_t_ade20k.py 8

Heads, data and schedule are those of mmseg's Semantic FPN with Twins (AdamW at 1e-4); the backbone
and its weights are those of mmseg's UPerNet with Swin.
"""

# Found by this package, because mmseg may come from another distribution than mmengine expects.
_base_ = [
    __import__('dynsp_mm').config(
        'mmseg::twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512.py'
    ),
    '../_base_/sparse_training.py',
]

pretrained = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/swin/swin_tiny_patch4_window7_224_20220317-1cdeb081.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='DynamicSwin',
        keep_ratios=0.7,
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
