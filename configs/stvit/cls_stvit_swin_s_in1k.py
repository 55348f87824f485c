"""Classifier, STViT-R on Swin-S, ImageNet, 300 epochs from scratch (1024 images a step).

    tools/dist_train.sh configs/stvit/cls_stvit_swin_s_in1k.py 8

The authors' weights:

    python tools/convert_checkpoint.py STViT-R-Swin-S.pth checkpoints/stvit_s.pth \\
        --config configs/stvit/cls_stvit_swin_s_in1k.py
    python tools/test.py configs/stvit/cls_stvit_swin_s_in1k.py checkpoints/stvit_s.pth
"""

_base_ = 'mmpretrain::swin_transformer/swin-small_16xb64_in1k.py'
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)

model = dict(backbone=dict(type='STViTSwin', form='classification'))
