"""Cascade Mask R-CNN, STViT-R on Swin-S, COCO, 3x: the published detector's recipe.

    tools/dist_train.sh configs/stvit/cascade_maskrcnn_stvit_swin_s.py 8 --amp

Multi-scale 480-800, 36 epochs with steps at 27 and 33, 16 images a step, mixed precision. Training
starts from the authors' ImageNet weights, which the first run downloads and converts.

The authors' detector was trained with the mask that model.backbone.pad_mask=release gives:

    python tools/convert_checkpoint.py THEIR_DETECTOR.pth checkpoints/stvit_s.pth \\
        --config configs/stvit/cascade_maskrcnn_stvit_swin_s.py
    python tools/test.py configs/stvit/cascade_maskrcnn_stvit_swin_s.py checkpoints/stvit_s.pth \\
        --cfg-options model.backbone.pad_mask=release
"""

_base_ = '../_base_/cascade_maskrcnn_swin_3x.py'
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)

pretrained = 'https://huggingface.co/csncsn/STViT-R/resolve/main/STViT-R-Swin-S.pth'
model = dict(
    backbone=dict(
        type='STViTSwin',
        depths=[2, 2, 18, 2],
        pad_mask='full',
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    )
)
