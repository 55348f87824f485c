_base_ = './dynamic_convnext/maskrcnn_dyconvnext_b.py'
