_base_ = './dynamic_convnext/upernet_dyconvnext_t_ade20k.py'
