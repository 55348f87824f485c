"""Cascade Mask R-CNN, DynamicConvNeXt-S, COCO, 3x (36 epochs, 16 images a step).

    tools/dist_train.sh configs/dynamic_convnext/cascade_maskrcnn_dyconvnext_s.py 8

Mixed precision and rate decay by layers, as in mmdet's ConvNeXt.
"""

_base_ = (
    'mmdet::convnext/cascade-mask-rcnn_convnext-s-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
)
# In place of mmpretrain.models, from which the dense backbone comes.
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)
custom_hooks = [dict(type='SpatialSparsityHook', keep_ratio_weight=10.0)]

# The inherited init_cfg names the published dense checkpoint (convnext-small, ImageNet-1k).
model = dict(backbone=dict(type='DynamicConvNeXt', keep_ratios=0.7))
