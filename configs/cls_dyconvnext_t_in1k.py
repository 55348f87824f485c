_base_ = './dynamic_convnext/cls_dyconvnext_t_in1k.py'
