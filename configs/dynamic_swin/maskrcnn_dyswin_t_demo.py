"""Mask R-CNN, DynamicSwin-T, from scratch on the generated shapes: what `make demo` runs.

    python tools/make_demo_data.py work_dirs/demo/data
    python tools/train.py configs/dynamic_swin/maskrcnn_dyswin_t_demo.py

Sized for two CPU cores and ten minutes. On images of your own, start from a checkpoint
(configs/dynamic_swin/maskrcnn_dyswin_t.py) instead.
"""

_base_ = './maskrcnn_dyswin_t.py'

data_root = 'work_dirs/demo/data/'
work_dir = 'work_dirs/demo'
metainfo = dict(
    classes=('ringed_disk', 'striped_box', 'checkered_triangle', 'dotted_star'),
    palette=[(220, 50, 47), (38, 110, 220), (40, 170, 70), (235, 200, 30)],
)

model = dict(
    # Images of 128 x 160: one group of paddings to 32 and anchors of half the usual size.
    backbone=dict(init_cfg=None, drop_path_rate=0.0),
    rpn_head=dict(anchor_generator=dict(scales=[6])),
    roi_head=dict(
        bbox_head=dict(num_classes=4, fc_out_channels=256), mask_head=dict(num_classes=4)
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=20)),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

max_iters = 110
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=10),
    dict(type='CosineAnnealingLR', eta_min=3e-5, by_epoch=False, begin=10, end=max_iters),
]
optim_wrapper = dict(optimizer=dict(lr=3e-4), clip_grad=dict(max_norm=1.0))
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=55, max_keep_ckpts=2, save_last=True),
    logger=dict(interval=10),
)
log_processor = dict(by_epoch=False, window_size=10)
randomness = dict(seed=0)
