_base_ = './dynamic_convnext/cascade_maskrcnn_dyconvnext_s_teacher.py'
