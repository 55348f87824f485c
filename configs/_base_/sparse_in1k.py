# ImageNet-1k recipe of the authors' sparse Swin and ConvNeXt (arXiv 2207.01580): 120 epochs from
# dense weights (`load_from`), which are also the teacher's, augmented and averaged as in dense
# training. Configs that inherit this name the teacher in the first hook.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/default_runtime.py',
    './sparse_training.py',
]

# The rate is for 4096 images a step: 32 GPUs x 128.
train_dataloader = dict(batch_size=128)
auto_scale_lr = dict(base_batch_size=4096)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05),
    constructor='SpatialSparsityOptimWrapperConstructor',
    paramwise_cfg=dict(pretrained_lr_mult=0.2, flat_decay_mult=0.0),
)

max_epochs = 120
warm_up = 20
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-3, by_epoch=True, end=warm_up, convert_to_iter_based=True
    ),
    # Down to 1e-6, and for pretrained parameters to their fraction of it.
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-6 / 4e-3,
        by_epoch=True,
        begin=warm_up,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='HoldPretrainedHook', epochs=5),
    # Validation and checkpoints are of the averaged weights.
    dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL'),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
