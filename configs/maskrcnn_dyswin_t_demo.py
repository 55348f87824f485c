_base_ = './dynamic_swin/maskrcnn_dyswin_t_demo.py'
