"""RetinaNet, DynamicSwin-S, COCO, 1x.

tools/dist_train.sh configs/dynamic_swin/retinanet_dyswin_s.py 8
"""

_base_ = './retinanet_dyswin_t.py'

pretrained = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_small_patch4_window7_224.pth'
model = dict(backbone=dict(depths=[2, 2, 18, 2], init_cfg=dict(checkpoint=pretrained)))
