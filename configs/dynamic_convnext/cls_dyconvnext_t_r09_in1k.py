"""Classifier, DynamicConvNeXt-T that keeps 0.9, ImageNet, 120 epochs (32 GPUs x 128 images).

    GPUS=32 tools/slurm_train.sh PARTITION JOB \\
        configs/dynamic_convnext/cls_dyconvnext_t_r09_in1k.py WORK_DIR
"""

_base_ = './cls_dyconvnext_t_in1k.py'

model = dict(backbone=dict(keep_ratios=0.9))
