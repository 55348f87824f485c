_base_ = './dynamic_swin/fpn_dyswin_s_ade20k.py'
