_base_ = './dynamic_swin/fpn_dyswin_t_ade20k.py'
