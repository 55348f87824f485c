"""UPerNet, DynamicSwin-S, ADE20K, 80k iterations from the dense model, which stays its teacher.

    tools/dist_train.sh configs/dynamic_swin/upernet_dyswin_s_ade20k_teacher.py 8

With --from-dense FILE it starts from, and learns from, your own dense model.
"""

_base_ = './upernet_dyswin_t_ade20k_teacher.py'

# The whole model that mmseg published.
dense = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/swin/upernet_swin_small_patch4_window7_512x512_160k_ade20k_pretrain_224x224_1K/upernet_swin_small_patch4_window7_512x512_160k_ade20k_pretrain_224x224_1K_20210526_192015-ee2fff1c.pth'
load_from = dense
custom_hooks = [dict(type='SpatialSparsityHook', teacher=dense)]

# ImageNet weights are named here and not loaded: the dense model brings its own.
checkpoint_file = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/pretrain/swin/swin_small_patch4_window7_224_20220317-7ba6d6dd.pth'
model = dict(backbone=dict(depths=[2, 2, 18, 2]))
