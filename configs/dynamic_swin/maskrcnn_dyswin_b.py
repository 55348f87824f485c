"""Mask R-CNN, DynamicSwin-B, COCO, 1x.

python tools/train.py configs/dynamic_swin/maskrcnn_dyswin_b.py
"""

_base_ = './maskrcnn_dyswin_t.py'

pretrained = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_base_patch4_window7_224.pth'
model = dict(
    backbone=dict(
        embed_dims=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
