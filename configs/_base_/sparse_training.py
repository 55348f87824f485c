# What a config needs to train a sparse backbone: the package and its training hook.
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)
custom_hooks = [dict(type='SpatialSparsityHook', keep_ratio_weight=10.0)]
