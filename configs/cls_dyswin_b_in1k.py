_base_ = './dynamic_swin/cls_dyswin_b_in1k.py'
