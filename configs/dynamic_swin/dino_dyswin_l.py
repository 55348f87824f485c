"""DINO, 5 scales, DynamicSwin-L, COCO, 12 epochs (16 images a step).

tools/dist_train.sh configs/dynamic_swin/dino_dyswin_l.py 8
"""

_base_ = ['mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py', '../_base_/sparse_training.py']

# The inherited init_cfg names the published dense checkpoint (swin_large_patch4_window12_384_22k).
model = dict(backbone=dict(type='DynamicSwin', keep_ratios=0.7))
