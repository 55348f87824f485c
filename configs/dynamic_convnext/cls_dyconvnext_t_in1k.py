"""Classifier, DynamicConvNeXt-T, ImageNet, 120 epochs from dense weights (32 GPUs x 128 images).

    GPUS=32 tools/slurm_train.sh PARTITION JOB \\
        configs/dynamic_convnext/cls_dyconvnext_t_in1k.py WORK_DIR

On 8 GPUs, in steps of 4 x 8 x 128 images:

    tools/dist_train.sh configs/dynamic_convnext/cls_dyconvnext_t_in1k.py 8 \\
        --cfg-options optim_wrapper.accumulative_counts=4 custom_hooks.2.interval=4

It starts from mmpretrain's weights; those that the authors started from are
--from-dense https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224_ema.pth
"""

_base_ = ['mmpretrain::_base_/models/convnext/convnext-tiny.py', '../_base_/sparse_in1k.py']

model = dict(
    backbone=dict(type='DynamicConvNeXt', keep_ratios=0.7, mixing='two_stream', drop_path_rate=0.2)
)
load_from = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/convnext-tiny_32xb128_in1k_20221207-998cf3e9.pth'
custom_hooks = [dict(type='SpatialSparsityHook', teacher=load_from), *_base_.custom_hooks[1:]]
