"""Classifier, DynamicConvNeXt-B, ImageNet, 120 epochs from dense weights (32 GPUs x 128 images).

    GPUS=32 tools/slurm_train.sh PARTITION JOB \\
        configs/dynamic_convnext/cls_dyconvnext_b_in1k.py WORK_DIR
"""

_base_ = ['mmpretrain::_base_/models/convnext/convnext-base.py', '../_base_/sparse_in1k.py']

model = dict(
    backbone=dict(type='DynamicConvNeXt', keep_ratios=0.7, mixing='two_stream', drop_path_rate=0.5)
)
load_from = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/convnext-base_3rdparty_32xb128_in1k_20220124-d0915162.pth'
custom_hooks = [dict(type='SpatialSparsityHook', teacher=load_from), *_base_.custom_hooks[1:]]
