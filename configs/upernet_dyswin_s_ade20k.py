_base_ = './dynamic_swin/upernet_dyswin_s_ade20k.py'
