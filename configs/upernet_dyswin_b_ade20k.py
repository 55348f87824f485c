_base_ = './dynamic_swin/upernet_dyswin_b_ade20k.py'
