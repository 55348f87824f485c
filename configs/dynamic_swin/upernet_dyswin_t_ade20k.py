"""UPerNet, DynamicSwin-T, ADE20K, 160k iterations, crops of 512 (16 images a step).

tools/dist_train.sh configs/dynamic_swin/upernet_dyswin_t_ade20k.py 8
"""

# Found by this package, because mmseg may come from another distribution than mmengine expects.
_base_ = [
    __import__('dynsp_mm').config(
        'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
    ),
    '../_base_/sparse_training.py',
]

# The inherited init_cfg names the published dense checkpoint (swin_tiny_patch4_window7_224).
model = dict(backbone=dict(type='DynamicSwin', keep_ratios=0.7))
