"""Cascade Mask R-CNN, DynamicSwin-B, COCO, 1x from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_swin/cascade_maskrcnn_dyswin_b_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './cascade_maskrcnn_dyswin_t_teacher.py'

# The whole model that the authors of Swin published.
dense = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.2/cascade_mask_rcnn_swin_base_patch4_window7.pth'
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# ImageNet weights are named here and not loaded: the dense model brings its own.
pretrained = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_base_patch4_window7_224.pth'
model = dict(
    backbone=dict(
        embed_dims=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], drop_path_rate=0.3
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
