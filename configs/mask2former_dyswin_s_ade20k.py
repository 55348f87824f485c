_base_ = './dynamic_swin/mask2former_dyswin_s_ade20k.py'
