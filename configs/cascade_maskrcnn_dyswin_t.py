_base_ = './dynamic_swin/cascade_maskrcnn_dyswin_t.py'
