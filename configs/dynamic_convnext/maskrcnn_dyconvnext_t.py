"""Mask R-CNN, DynamicConvNeXt-T, COCO, 1x (12 epochs, 16 images a step).

    python tools/train.py configs/dynamic_convnext/maskrcnn_dyconvnext_t.py
    tools/dist_train.sh configs/dynamic_convnext/maskrcnn_dyconvnext_t.py 8

mmdet has ConvNeXt on a 3x schedule only; this is its model and layer-wise rate decay on the
1x data, rates and milestones of mmdet's Swin.
"""

_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', '../_base_/sparse_training.py']

pretrained = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='DynamicConvNeXt',
        arch='tiny',
        keep_ratios=0.7,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.'),
    )
)

optim_wrapper = dict(
    constructor='LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.95, decay_type='layer_wise', num_layers=6),
)
