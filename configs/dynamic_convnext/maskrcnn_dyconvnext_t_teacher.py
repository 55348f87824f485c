"""Mask R-CNN, DynamicConvNeXt-T, COCO, 1x from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_convnext/maskrcnn_dyconvnext_t_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './maskrcnn_dyconvnext_t.py'

# The whole model that mmdet published.
dense = 'https://download.openmmlab.com/mmdetection/v2.0/convnext/mask_rcnn_convnext-t_p4_w7_fpn_fp16_ms-crop_3x_coco/mask_rcnn_convnext-t_p4_w7_fpn_fp16_ms-crop_3x_coco_20220426_154953-050731f4.pth'
model = dict(backbone=dict(init_cfg=None))
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# Predictors and fast paths at five times the rate of the rest, which has that of dense training.
optim_wrapper = dict(
    optimizer=dict(lr=0.0005),
    constructor='SpatialSparsityOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, pretrained_lr_mult=0.2, layer_decay_rate=0.95),
)
