_base_ = './dynamic_convnext/maskrcnn_dyconvnext_t_teacher.py'
