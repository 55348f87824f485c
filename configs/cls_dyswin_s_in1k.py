_base_ = './dynamic_swin/cls_dyswin_s_in1k.py'
