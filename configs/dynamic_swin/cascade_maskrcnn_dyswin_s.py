"""Cascade Mask R-CNN, DynamicSwin-S, COCO, 3x.

tools/dist_train.sh configs/dynamic_swin/cascade_maskrcnn_dyswin_s.py 8 --amp
"""

_base_ = './cascade_maskrcnn_dyswin_t.py'

pretrained = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_small_patch4_window7_224.pth'
model = dict(backbone=dict(depths=[2, 2, 18, 2], init_cfg=dict(checkpoint=pretrained)))
