_base_ = './dynamic_convnext/fpn_dyconvnext_t_ade20k.py'
