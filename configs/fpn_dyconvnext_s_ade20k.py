_base_ = './dynamic_convnext/fpn_dyconvnext_s_ade20k.py'
