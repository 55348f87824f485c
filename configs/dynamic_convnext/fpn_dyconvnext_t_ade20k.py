"""Semantic FPN, DynamicConvNeXt-T, ADE20K, 80k iterations, crops of 512 (32 images a step).

    tools/dist_train.sh configs/dynamic_convnext/fpn_dyconvnext_t_ade20k.py 8

Heads, data and schedule are those of mmseg's Semantic FPN with Twins (AdamW at 1e-4); the backbone
and its weights are those of mmseg's UPerNet with ConvNeXt.
"""

# Found by this package, because mmseg may come from another distribution than mmengine expects.
_base_ = [
    __import__('dynsp_mm').config(
        'mmseg::twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512.py'
    ),
    '../_base_/sparse_training.py',
]

pretrained = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='DynamicConvNeXt',
        keep_ratios=0.7,
        arch='tiny',
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
