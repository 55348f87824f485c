"""Cascade Mask R-CNN, DynamicSwin-T, COCO, 3x (36 epochs, 16 images a step).

tools/dist_train.sh configs/dynamic_swin/cascade_maskrcnn_dyswin_t.py 8 --amp
"""

_base_ = '../_base_/cascade_maskrcnn_swin_3x.py'
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)
custom_hooks = [dict(type='SpatialSparsityHook', keep_ratio_weight=10.0)]

pretrained = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth'
model = dict(
    backbone=dict(
        type='DynamicSwin', keep_ratios=0.7, init_cfg=dict(type='Pretrained', checkpoint=pretrained)
    )
)
