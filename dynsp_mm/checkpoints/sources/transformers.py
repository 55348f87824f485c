"""Checkpoints of Hugging Face's transformers, which are told apart and not taken."""

from ..rules import Source, register

MODEL = r'(?:(?:swin|swinv2|convnext|convnextv2)\.)?'
ADVICE = (
    'take the same weights of their authors, timm, torchvision or OpenMMLab, whose names are known'
)
register(
    Source(
        'transformers Swin',
        (
            MODEL + r'embeddings\.patch_embeddings\.projection\.',
            MODEL + r'encoder\.layers\.\d+\.blocks\.\d+\.attention\.',
        ),
        refusal=ADVICE,
    ),
    Source(
        'transformers ConvNeXt',
        (
            MODEL + r'embeddings\.patch_embeddings\.',
            MODEL + r'encoder\.stages\.\d+\.layers\.\d+\.dwconv\.',
        ),
        refusal=ADVICE,
    ),
)
