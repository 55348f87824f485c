"""Classifier, DynamicConvNeXt-S, ImageNet, 120 epochs from dense weights (32 GPUs x 128 images).

    GPUS=32 tools/slurm_train.sh PARTITION JOB \\
        configs/dynamic_convnext/cls_dyconvnext_s_in1k.py WORK_DIR

It starts from mmpretrain's weights; those that the authors started from are
--from-dense https://dl.fbaipublicfiles.com/convnext/convnext_small_1k_224_ema.pth
"""

_base_ = ['mmpretrain::_base_/models/convnext/convnext-small.py', '../_base_/sparse_in1k.py']

model = dict(
    backbone=dict(type='DynamicConvNeXt', keep_ratios=0.7, mixing='two_stream', drop_path_rate=0.2)
)
load_from = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/convnext-small_32xb128_in1k_20221207-4ab7052c.pth'
custom_hooks = [dict(type='SpatialSparsityHook', teacher=load_from), *_base_.custom_hooks[1:]]
