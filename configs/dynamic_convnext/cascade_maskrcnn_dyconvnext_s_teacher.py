"""Cascade Mask R-CNN, DynamicConvNeXt-S, COCO, 1x from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_convnext/cascade_maskrcnn_dyconvnext_s_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './cascade_maskrcnn_dyconvnext_t_teacher.py'

# The whole model that mmdet published.
dense = 'https://download.openmmlab.com/mmdetection/v2.0/convnext/cascade_mask_rcnn_convnext-s_p4_w7_fpn_giou_4conv1f_fp16_ms-crop_3x_coco/cascade_mask_rcnn_convnext-s_p4_w7_fpn_giou_4conv1f_fp16_ms-crop_3x_coco_20220510_201004-3d24f5a4.pth'
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# ImageNet weights are named here and not loaded: the dense model brings its own.
checkpoint_file = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/convnext-small_3rdparty_32xb128-noema_in1k_20220301-303e75e3.pth'
model = dict(backbone=dict(arch='small', drop_path_rate=0.6))
