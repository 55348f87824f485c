"""Cascade Mask R-CNN, STViT-R on Swin-S, COCO, 3x: the published detector's recipe.

    tools/dist_train.sh configs/cascade_maskrcnn_stvit_swin_s.py 8 --amp

Multi-scale 480-800, 36 epochs with steps at 27 and 33, 16 images a step, mixed precision. Training
starts from the authors' ImageNet weights, which the first run downloads and converts.

The authors' detector was trained with the mask that model.backbone.pad_mask=release gives:

    python tools/convert_checkpoint.py THEIR_DETECTOR.pth checkpoints/stvit_s.pth \\
        --config configs/cascade_maskrcnn_stvit_swin_s.py
    python tools/test.py configs/cascade_maskrcnn_stvit_swin_s.py checkpoints/stvit_s.pth \\
        --cfg-options model.backbone.pad_mask=release
"""
# mmdet's config has the same heads (4conv1fc, SyncBN, GIoU), data and schedule.
_base_ = 'mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'  # noqa: E501
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)

pretrained = 'https://huggingface.co/csncsn/STViT-R/resolve/main/STViT-R-Swin-S.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='STViTSwin',
        embed_dims=96,
        depths=[2, 2, 18, 2],
        num_heads=[3, 6, 12, 24],
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        pad_mask='full',
        init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    neck=dict(in_channels=[96, 192, 384, 768]))

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(
            absolute_pos_embed=dict(decay_mult=0.),
            relative_position_bias_table=dict(decay_mult=0.),
            norm=dict(decay_mult=0.))))
# As mmdet's but for a warm-up of 500 iterations, which the authors used.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1)
]
