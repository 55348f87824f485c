_base_ = './dynamic_swin/cascade_maskrcnn_dyswin_t_teacher.py'
