_base_ = './dynamic_swin/fpn_dyswin_b_ade20k.py'
