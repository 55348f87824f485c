"""UPerNet, DynamicConvNeXt-B, ADE20K, 80k iterations from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_convnext/upernet_dyconvnext_b_ade20k_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './upernet_dyconvnext_t_ade20k_teacher.py'

# The whole model that mmseg published.
dense = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/convnext/upernet_convnext_base_fp16_512x512_160k_ade20k/upernet_convnext_base_fp16_512x512_160k_ade20k_20220227_181227-02a24fc6.pth'
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# ImageNet weights are named here and not loaded: the dense model brings its own.
checkpoint_file = 'https://mmassets.onedl.ai/mmclassification/v0/convnext/downstream/convnext-base_3rdparty_32xb128-noema_in1k_20220301-2a0ee547.pth'
model = dict(
    backbone=dict(arch='base'),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
