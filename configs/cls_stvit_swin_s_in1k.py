_base_ = './stvit/cls_stvit_swin_s_in1k.py'
