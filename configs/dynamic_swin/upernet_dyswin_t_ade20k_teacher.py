"""UPerNet, DynamicSwin-T, ADE20K, 80k iterations from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_swin/upernet_dyswin_t_ade20k_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './upernet_dyswin_t_ade20k.py'

# The whole model that mmseg published.
dense = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/swin/upernet_swin_tiny_patch4_window7_512x512_160k_ade20k_pretrain_224x224_1K/upernet_swin_tiny_patch4_window7_512x512_160k_ade20k_pretrain_224x224_1K_20210531_112542-e380ad3e.pth'
model = dict(backbone=dict(init_cfg=None))
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# Predictors and fast paths at five times the rate of the rest, which has that of dense training.
optim_wrapper = dict(
    optimizer=dict(lr=0.0003),
    constructor='SpatialSparsityOptimWrapperConstructor',
    paramwise_cfg=dict(pretrained_lr_mult=0.2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, begin=1500, end=80000, eta_min=0.0, by_epoch=False),
]
train_cfg = dict(max_iters=80000)
