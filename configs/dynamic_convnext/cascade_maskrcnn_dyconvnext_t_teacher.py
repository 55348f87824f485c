"""Cascade Mask R-CNN, DynamicConvNeXt-T, COCO, 1x from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_convnext/cascade_maskrcnn_dyconvnext_t_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './cascade_maskrcnn_dyconvnext_t.py'

# The whole model that mmdet published.
dense = 'https://download.openmmlab.com/mmdetection/v2.0/convnext/cascade_mask_rcnn_convnext-t_p4_w7_fpn_giou_4conv1f_fp16_ms-crop_3x_coco/cascade_mask_rcnn_convnext-t_p4_w7_fpn_giou_4conv1f_fp16_ms-crop_3x_coco_20220509_204200-8f07c40b.pth'
model = dict(backbone=dict(init_cfg=None))
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# Predictors and fast paths at five times the rate of the rest, which has that of dense training.
optim_wrapper = dict(
    optimizer=dict(lr=0.001),
    constructor='SpatialSparsityOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, pretrained_lr_mult=0.2, layer_decay_rate=0.7),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(max_epochs=12)
