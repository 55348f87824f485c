"""Imagenette, STViTSwin, trained on as long as the other rows."""
_base_ = './_base_/imagenette_rows.py'

model = dict(backbone=dict(type='STViTSwin'))
load_from = 'work_dirs/imagenette_stvit_pretrain/epoch_24.pth'
