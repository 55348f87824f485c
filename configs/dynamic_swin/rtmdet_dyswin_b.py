"""RTMDet-L, DynamicSwin-B, COCO, 100 epochs at 640 px (128 images a step).

tools/dist_train.sh configs/dynamic_swin/rtmdet_dyswin_b.py 4
"""

_base_ = 'mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py'
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)

# The inherited init_cfg names the published dense checkpoint (swin_base_patch4_window12_384_22k).
model = dict(backbone=dict(type='DynamicSwin', keep_ratios=0.7))
# The base has hooks of its own: moving averages and the switch of pipelines.
custom_hooks = [*_base_.custom_hooks, dict(type='SpatialSparsityHook', keep_ratio_weight=10.0)]
