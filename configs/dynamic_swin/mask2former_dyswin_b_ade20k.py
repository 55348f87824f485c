"""Mask2Former, DynamicSwin-B, ADE20K, 160k iterations, crops of 640 (16 images a step).

    tools/dist_train.sh configs/dynamic_swin/mask2former_dyswin_b_ade20k.py 8

The head is mmdet's, which must be installed beside mmseg. Windows are of 12, as in mmseg's config.
"""

# Found by this package, because mmseg may come from another distribution than mmengine expects.
_base_ = [
    __import__('dynsp_mm').config(
        'mmseg::mask2former/mask2former_swin-b-in1k-384x384-pre_8xb2-160k_ade20k-640x640.py'
    ),
    '../_base_/sparse_training.py',
]

# The inherited init_cfg names the published dense checkpoint (swin_base_patch4_window12_384).
model = dict(backbone=dict(type='DynamicSwin', keep_ratios=0.7))
