"""Mask R-CNN, STViT-R on Swin-T, COCO, 1x (12 epochs, 16 images a step).

    python tools/train.py configs/stvit/maskrcnn_stvit_swin_t.py

There are no published weights of this size. Training starts from dense Swin-T, which the inherited
init_cfg names: its blocks fit, with queries, keys and values split; the stem starts new.
"""

_base_ = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)

model = dict(backbone=dict(type='STViTSwin', pad_mask='full'))
