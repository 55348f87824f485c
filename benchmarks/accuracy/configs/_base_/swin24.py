# The reduced network of docs/RESULTS.md: Swin-T's depths at a quarter of its width, so that all its
# rows can be trained without an accelerator.
model = dict(
    backbone=dict(
        type='DynamicSwin',
        embed_dims=24,
        depths=[2, 2, 6, 2],
        num_heads=[1, 2, 4, 8],
        drop_path_rate=0.05,
    )
)
custom_imports = dict(imports=['dynsp_mm'], allow_failed_imports=False)
