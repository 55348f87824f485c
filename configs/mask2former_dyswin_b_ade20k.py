_base_ = './dynamic_swin/mask2former_dyswin_b_ade20k.py'
