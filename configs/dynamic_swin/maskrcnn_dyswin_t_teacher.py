"""Mask R-CNN, DynamicSwin-T, COCO, 1x from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_swin/maskrcnn_dyswin_t_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './maskrcnn_dyswin_t.py'

# The whole model that mmdet published.
dense = 'https://download.openmmlab.com/mmdetection/v2.0/swin/mask_rcnn_swin-t-p4-w7_fpn_1x_coco/mask_rcnn_swin-t-p4-w7_fpn_1x_coco_20210902_120937-9d6b7cfa.pth'
model = dict(backbone=dict(init_cfg=None))
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# Predictors and fast paths at five times the rate of the rest, which has that of dense training.
optim_wrapper = dict(
    optimizer=dict(lr=0.0005),
    constructor='SpatialSparsityOptimWrapperConstructor',
    paramwise_cfg=dict(pretrained_lr_mult=0.2),
)
