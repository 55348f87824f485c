_base_ = './dynamic_swin/retinanet_dyswin_b.py'
