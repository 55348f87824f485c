_base_ = './dynamic_convnext/upernet_dyconvnext_b_ade20k.py'
