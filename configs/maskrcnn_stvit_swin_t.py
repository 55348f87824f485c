_base_ = './stvit/maskrcnn_stvit_swin_t.py'
