_base_ = './dynamic_convnext/cls_dyconvnext_b_r09_in1k.py'
