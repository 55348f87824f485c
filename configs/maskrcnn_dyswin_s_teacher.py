_base_ = './dynamic_swin/maskrcnn_dyswin_s_teacher.py'
