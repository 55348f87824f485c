_base_ = './dynamic_swin/mask2former_dyswin_t_ade20k.py'
