"""UPerNet, DynamicConvNeXt-T, ADE20K, 80k iterations from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_convnext/upernet_dyconvnext_t_ade20k_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './upernet_dyconvnext_t_ade20k.py'

# The whole model that mmseg published.
dense = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/convnext/upernet_convnext_tiny_fp16_512x512_160k_ade20k/upernet_convnext_tiny_fp16_512x512_160k_ade20k_20220227_124553-cad485de.pth'
model = dict(backbone=dict(init_cfg=None))
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# Predictors and fast paths at five times the rate of the rest, which has that of dense training.
optim_wrapper = dict(
    optimizer=dict(lr=0.0005),
    constructor='SpatialSparsityOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, pretrained_lr_mult=0.2, layer_decay_rate=0.9),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, begin=1500, end=80000, eta_min=0.0, by_epoch=False),
]
train_cfg = dict(max_iters=80000)
