_base_ = './dynamic_convnext/cls_dyconvnext_t_r09_in1k.py'
