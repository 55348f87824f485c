"""UPerNet, STViT-R on Swin-S, ADE20K, 160k iterations, crops of 512 (16 images a step).

    tools/dist_train.sh configs/stvit/upernet_stvit_swin_s_ade20k.py 8

The paper has this row, its code was never released: recipe of mmseg's Swin, backbone from the
authors' ImageNet weights.
"""

# Found by this package, because mmseg may come from another distribution than mmengine expects.
_base_ = [
    __import__('dynsp_mm').config(
        'mmseg::swin/swin-small-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
    )
]
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)

pretrained = 'https://huggingface.co/csncsn/STViT-R/resolve/main/STViT-R-Swin-S.pth'
model = dict(backbone=dict(type='STViTSwin', pad_mask='full', init_cfg=dict(checkpoint=pretrained)))
