"""CamVid, fast and slow paths, without a teacher."""

_base_ = './_base_/camvid_rows.py'

model = dict(backbone=dict(keep_ratios=0.7, mixing='two_stream'))
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    constructor='SpatialSparsityOptimWrapperConstructor',
    paramwise_cfg=dict(pretrained_lr_mult=0.2),
)
custom_hooks = [dict(type='SpatialSparsityHook')]
