_base_ = './dynamic_swin/dino_dyswin_l.py'
