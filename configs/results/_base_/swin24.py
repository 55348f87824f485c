# The reduced network of docs/RESULTS.md: Swin-T's depths at a quarter of its width, so that all its
# rows can be trained without an accelerator. `backbone` is taken by the configs beside this folder.
backbone = dict(
    type='DynamicSwin',
    embed_dims=24,
    depths=[2, 2, 6, 2],
    num_heads=[1, 2, 4, 8],
    drop_path_rate=0.05)
