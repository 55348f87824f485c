"""Sizes of the published architectures, by name."""

SWIN = {
    'tiny': dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    'small': dict(embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    'base': dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    'large': dict(embed_dims=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
}
SWIN_V2 = {
    **{name: dict(sizes, extra_norm_every_n_blocks=0) for name, sizes in SWIN.items()},
    'huge': dict(
        embed_dims=352, depths=(2, 2, 18, 2), num_heads=(8, 16, 32, 64), extra_norm_every_n_blocks=6
    ),
    'giant': dict(
        embed_dims=512,
        depths=(2, 2, 42, 4),
        num_heads=(16, 32, 64, 128),
        extra_norm_every_n_blocks=6,
    ),
}
ALIASES = dict(t='tiny', s='small', b='base', l='large', xl='xlarge', h='huge', g='giant')
CONVNEXT = {
    'atto': dict(depths=(2, 2, 6, 2), channels=(40, 80, 160, 320)),
    'femto': dict(depths=(2, 2, 6, 2), channels=(48, 96, 192, 384)),
    'pico': dict(depths=(2, 2, 6, 2), channels=(64, 128, 256, 512)),
    'nano': dict(depths=(2, 2, 8, 2), channels=(80, 160, 320, 640)),
    'tiny': dict(depths=(3, 3, 9, 3), channels=(96, 192, 384, 768)),
    'small': dict(depths=(3, 3, 27, 3), channels=(96, 192, 384, 768)),
    'base': dict(depths=(3, 3, 27, 3), channels=(128, 256, 512, 1024)),
    'large': dict(depths=(3, 3, 27, 3), channels=(192, 384, 768, 1536)),
    'xlarge': dict(depths=(3, 3, 27, 3), channels=(256, 512, 1024, 2048)),
    'huge': dict(depths=(3, 3, 27, 3), channels=(352, 704, 1408, 2816)),
}
