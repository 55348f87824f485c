"""Classifier, DynamicSwin-T, ImageNet, 120 epochs from dense weights (32 GPUs x 128 images).

    GPUS=32 tools/slurm_train.sh PARTITION JOB configs/dynamic_swin/cls_dyswin_t_in1k.py WORK_DIR

On 8 GPUs, in steps of 4 x 8 x 128 images:

    tools/dist_train.sh configs/dynamic_swin/cls_dyswin_t_in1k.py 8 \\
        --cfg-options optim_wrapper.accumulative_counts=4 custom_hooks.2.interval=4
"""

_base_ = ['mmpretrain::_base_/models/swin_transformer/tiny_224.py', '../_base_/sparse_in1k.py']

model = dict(
    backbone=dict(type='DynamicSwin', keep_ratios=0.7, mixing='two_stream', drop_path_rate=0.2)
)
load_from = 'https://mmassets.onedl.ai/mmclassification/v0/swin-transformer/convert/swin_tiny_patch4_window7_224-160bb0a5.pth'
custom_hooks = [dict(type='SpatialSparsityHook', teacher=load_from), *_base_.custom_hooks[1:]]
