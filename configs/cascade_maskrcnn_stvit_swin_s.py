_base_ = './stvit/cascade_maskrcnn_stvit_swin_s.py'
