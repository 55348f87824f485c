_base_ = './dynamic_convnext/cls_dyconvnext_s_r09_in1k.py'
