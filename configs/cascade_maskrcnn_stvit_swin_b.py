_base_ = './stvit/cascade_maskrcnn_stvit_swin_b.py'
