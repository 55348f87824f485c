"""UPerNet, DynamicConvNeXt-S, ADE20K, 160k iterations, crops of 512 (16 images a step).

    tools/dist_train.sh configs/dynamic_convnext/upernet_dyconvnext_s_ade20k.py 8

Mixed precision, rate decay by stages and sliding windows at test time, as in mmseg's ConvNeXt.
"""

# Found by this package, because mmseg may come from another distribution than mmengine expects.
_base_ = [
    __import__('dynsp_mm').config(
        'mmseg::convnext/convnext-small_upernet_8xb2-amp-160k_ade20k-512x512.py'
    )
]
# In place of mmpretrain.models, from which the dense backbone comes.
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)
custom_hooks = [dict(type='SpatialSparsityHook', keep_ratio_weight=10.0)]

# The inherited init_cfg names the published dense checkpoint (convnext-small, ImageNet-1k).
model = dict(backbone=dict(type='DynamicConvNeXt', keep_ratios=0.7))
