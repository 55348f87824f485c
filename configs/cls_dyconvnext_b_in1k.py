_base_ = './dynamic_convnext/cls_dyconvnext_b_in1k.py'
