_base_ = './stvit/upernet_stvit_swin_s_ade20k.py'
