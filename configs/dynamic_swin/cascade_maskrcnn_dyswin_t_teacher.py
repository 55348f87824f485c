"""Cascade Mask R-CNN, DynamicSwin-T, COCO, 1x from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_swin/cascade_maskrcnn_dyswin_t_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './cascade_maskrcnn_dyswin_t.py'

# The whole model that the authors of Swin published.
dense = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.2/cascade_mask_rcnn_swin_tiny_patch4_window7.pth'
model = dict(backbone=dict(init_cfg=None))
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# Predictors and fast paths at five times the rate of the rest, which has that of dense training.
optim_wrapper = dict(
    optimizer=dict(lr=0.0005),
    constructor='SpatialSparsityOptimWrapperConstructor',
    paramwise_cfg=dict(pretrained_lr_mult=0.2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(max_epochs=12)
