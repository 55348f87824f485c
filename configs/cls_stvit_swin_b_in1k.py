_base_ = './stvit/cls_stvit_swin_b_in1k.py'
