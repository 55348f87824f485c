_base_ = './dynamic_convnext/cascade_maskrcnn_dyconvnext_b.py'
