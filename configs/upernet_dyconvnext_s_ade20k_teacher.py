_base_ = './dynamic_convnext/upernet_dyconvnext_s_ade20k_teacher.py'
