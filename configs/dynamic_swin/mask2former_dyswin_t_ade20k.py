"""Mask2Former, DynamicSwin-T, ADE20K, 160k iterations, crops of 512 (16 images a step).

    tools/dist_train.sh configs/dynamic_swin/mask2former_dyswin_t_ade20k.py 8

The head is mmdet's, which must be installed beside mmseg. It sizes its output by the
padding of the whole image, so test_cfg.mode=slide needs model.data_preprocessor.test_cfg=None.
"""

# Found by this package, because mmseg may come from another distribution than mmengine expects.
_base_ = [
    __import__('dynsp_mm').config(
        'mmseg::mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py'
    )
]
custom_imports = dict(imports=['mmdet.models', 'dynsp_mm'], allow_failed_imports=False)
custom_hooks = [dict(type='SpatialSparsityHook', keep_ratio_weight=10.0)]

# The inherited init_cfg names the published dense checkpoint (swin_tiny_patch4_window7_224).
model = dict(backbone=dict(type='DynamicSwin', keep_ratios=0.7))
