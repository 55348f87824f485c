_base_ = './dynamic_convnext/cls_dyconvnext_s_in1k.py'
