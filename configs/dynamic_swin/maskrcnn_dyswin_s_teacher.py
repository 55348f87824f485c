"""Mask R-CNN, DynamicSwin-S, COCO, 1x from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_swin/maskrcnn_dyswin_s_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './maskrcnn_dyswin_t_teacher.py'

# The whole model that mmdet published.
dense = 'https://download.openmmlab.com/mmdetection/v2.0/swin/mask_rcnn_swin-s-p4-w7_fpn_fp16_ms-crop-3x_coco/mask_rcnn_swin-s-p4-w7_fpn_fp16_ms-crop-3x_coco_20210903_104808-b92c91f1.pth'
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# ImageNet weights are named here and not loaded: the dense model brings its own.
pretrained = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_small_patch4_window7_224.pth'
model = dict(backbone=dict(depths=[2, 2, 18, 2]))
