"""Mask2Former, DynamicSwin-S, ADE20K, 160k iterations, crops of 512 (16 images a step).

    tools/dist_train.sh configs/mask2former_dyswin_s_ade20k.py 8

The head is mmdet's, which must be installed beside mmseg. It sizes its output by the
padding of the whole image, so test_cfg.mode=slide needs model.data_preprocessor.test_cfg=None.
"""

# Importing the package first makes 'mmseg::' known where mmseg comes from another distribution.
_base_ = [
    __import__('dynsp_mm') and 'mmseg::mask2former/mask2former_swin-s_8xb2-160k_ade20k-512x512.py'
]
custom_imports = dict(imports=['mmdet.models', 'dynsp_mm'], allow_failed_imports=False)
custom_hooks = [dict(type='SparseTrainingHook', keep_ratio_weight=10.0)]

# The inherited init_cfg names the published dense checkpoint (swin_small_patch4_window7_224).
model = dict(backbone=dict(type='DynamicSwin', keep_ratios=0.7))
