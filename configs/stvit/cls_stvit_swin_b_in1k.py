"""Classifier, STViT-R on Swin-B, ImageNet, 300 epochs from scratch (1024 images a step).

tools/dist_train.sh configs/stvit/cls_stvit_swin_b_in1k.py 8
"""

_base_ = 'mmpretrain::swin_transformer/swin-base_16xb64_in1k.py'
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)

model = dict(backbone=dict(type='STViTSwin', form='classification', drop_path_rate=0.4))
