_base_ = './dynamic_convnext/fpn_dyconvnext_b_ade20k.py'
