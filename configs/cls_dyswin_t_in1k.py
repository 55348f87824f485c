_base_ = './dynamic_swin/cls_dyswin_t_in1k.py'
