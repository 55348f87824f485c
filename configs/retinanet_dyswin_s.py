_base_ = './dynamic_swin/retinanet_dyswin_s.py'
