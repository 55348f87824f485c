"""CamVid, STViTSwin, trained on as long as the other rows."""
_base_ = './_base_/camvid_rows.py'

model = dict(backbone=dict(type='STViTSwin'))
load_from = 'work_dirs/camvid_stvit_start/epoch_40.pth'
