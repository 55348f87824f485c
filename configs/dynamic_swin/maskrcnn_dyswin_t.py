"""Mask R-CNN, DynamicSwin-T, COCO, 1x (12 epochs, 16 images a step).

python tools/train.py configs/dynamic_swin/maskrcnn_dyswin_t.py
tools/dist_train.sh configs/dynamic_swin/maskrcnn_dyswin_t.py 8
"""

_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', '../_base_/sparse_training.py']

# The inherited init_cfg names the published dense checkpoint (swin_tiny_patch4_window7_224).
model = dict(backbone=dict(type='DynamicSwin', keep_ratios=0.7))
