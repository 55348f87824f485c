_base_ = './dynamic_swin/rtmdet_dyswin_b.py'
