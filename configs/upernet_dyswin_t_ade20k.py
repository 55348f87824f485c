_base_ = './dynamic_swin/upernet_dyswin_t_ade20k.py'
