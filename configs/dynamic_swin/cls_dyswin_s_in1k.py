"""Classifier, DynamicSwin-S, ImageNet, 120 epochs from dense weights (32 GPUs x 128 images).

GPUS=32 tools/slurm_train.sh PARTITION JOB configs/dynamic_swin/cls_dyswin_s_in1k.py WORK_DIR
"""

_base_ = ['mmpretrain::_base_/models/swin_transformer/small_224.py', '../_base_/sparse_in1k.py']

model = dict(
    backbone=dict(type='DynamicSwin', keep_ratios=0.7, mixing='two_stream', drop_path_rate=0.2)
)
load_from = 'https://mmassets.onedl.ai/mmclassification/v0/swin-transformer/convert/swin_small_patch4_window7_224-cc7a01c9.pth'
custom_hooks = [dict(type='SpatialSparsityHook', teacher=load_from), *_base_.custom_hooks[1:]]
