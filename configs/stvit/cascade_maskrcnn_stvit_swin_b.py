"""Cascade Mask R-CNN, STViT-R on Swin-B, COCO, 3x: the published detector's recipe.

tools/dist_train.sh configs/stvit/cascade_maskrcnn_stvit_swin_b.py 8 --amp
"""

_base_ = './cascade_maskrcnn_stvit_swin_s.py'

pretrained = 'https://huggingface.co/csncsn/STViT-R/resolve/main/STViT-R-Swin-B.pth'
model = dict(
    backbone=dict(
        embed_dims=128,
        num_heads=[4, 8, 16, 32],
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint=pretrained),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
