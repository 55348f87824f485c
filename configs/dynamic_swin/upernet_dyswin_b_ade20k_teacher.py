"""UPerNet, DynamicSwin-B, ADE20K, 80k iterations from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_swin/upernet_dyswin_b_ade20k_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './upernet_dyswin_t_ade20k_teacher.py'

# The whole model that mmseg published.
dense = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/swin/upernet_swin_base_patch4_window7_512x512_160k_ade20k_pretrain_224x224_1K/upernet_swin_base_patch4_window7_512x512_160k_ade20k_pretrain_224x224_1K_20210526_192340-593b0e13.pth'
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# ImageNet weights are named here and not loaded: the dense model brings its own.
checkpoint_file = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/swin/swin_base_patch4_window7_224_20220317-e9b98025.pth'
model = dict(
    backbone=dict(embed_dims=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32]),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
