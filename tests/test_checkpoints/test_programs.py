"""Weights of timm and torchvision give the same maps here; those of transformers are told apart."""

import pytest
import torch
from safetensors.torch import save_file
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.convnext import ConvNeXt as TorchvisionConvNeXt
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

from dynsp_mm import DynamicConvNeXt, DynamicSwin, DynamicSwinV2
from dynsp_mm.checkpoints import (
    backbone_config,
    convert_state_dict,
    find_source,
    load_from_anywhere,
    load_pretrained,
)
from dynsp_mm.checkpoints.sources import known_programs
from dynsp_mm.training.teacher import Teacher

DEPTHS, HEADS, WIDTHS = (1, 2, 4, 1), (1, 1, 2, 4), (16, 32, 64, 128)
ALL = (0, 1, 2, 3)
SWIN = dict(embed_dims=16, depths=DEPTHS, num_heads=HEADS)
THEIR_SWIN = dict(
    embed_dim=16, depths=DEPTHS, num_heads=HEADS, window_size=4, img_size=128, num_classes=5
)
THEIR_CONVNEXT = dict(depths=DEPTHS, dims=WIDTHS, num_classes=5)


def swin(**kwargs):
    return DynamicSwin(arch=SWIN, window_size=4, out_indices=ALL, **kwargs)


def swin_v2(**kwargs):
    arch = dict(SWIN, extra_norm_every_n_blocks=0)
    return DynamicSwinV2(arch, window_size=4, out_indices=ALL, **kwargs)


def convnext(**kwargs):
    arch = dict(depths=DEPTHS, channels=WIDTHS)
    return DynamicConvNeXt(arch, out_indices=ALL, gap_before_final_norm=False, **kwargs)


def torchvision_swin(**kwargs):
    return TorchvisionSwin((4, 4), 16, [*DEPTHS], [*HEADS], [4, 4], num_classes=5, **kwargs)


def torchvision_convnext():
    ends = (*WIDTHS[1:], None)
    return TorchvisionConvNeXt(
        [CNBlockConfig(*setting) for setting in zip(WIDTHS, ends, DEPTHS)], num_classes=5
    )


def last(outputs):
    return outputs.permute(0, 3, 1, 2)


# Name of the program -> its network, ours, and the normalised last map that theirs computes.
PROGRAMS = {
    'timm Swin': (
        lambda: SwinTransformer(**THEIR_SWIN),
        swin,
        lambda net, x: last(net.forward_features(x)),
    ),
    'timm Swin-V2': (
        lambda: SwinTransformerV2(**THEIR_SWIN),
        swin_v2,
        lambda net, x: last(net.forward_features(x)),
    ),
    'timm ConvNeXt': (
        lambda: ConvNeXt(**THEIR_CONVNEXT),
        convnext,
        lambda net, x: net.head.norm(net.forward_features(x)),
    ),
    'timm ConvNeXt of 1x1 convolutions and GRN': (
        lambda: ConvNeXt(**THEIR_CONVNEXT, use_grn=True, ls_init_value=None, conv_mlp=True),
        lambda: convnext(use_grn=True, layer_scale_init_value=0.0),
        lambda net, x: net.head.norm(net.forward_features(x)),
    ),
    'timm ConvNeXt normed before pooling': (
        lambda: ConvNeXt(**THEIR_CONVNEXT, head_norm_first=True),
        convnext,
        lambda net, x: net.forward_features(x),
    ),
    'torchvision Swin': (torchvision_swin, swin, lambda net, x: last(net.norm(net.features(x)))),
    'torchvision Swin-V2': (
        lambda: torchvision_swin(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
        swin_v2,
        lambda net, x: last(net.norm(net.features(x))),
    ),
    'torchvision ConvNeXt': (
        torchvision_convnext,
        convnext,
        lambda net, x: net.classifier[0](net.features(x)),
    ),
}


@pytest.fixture(params=PROGRAMS)
def program(request):
    """Name of the program, its network with random weights, ours, and what both compute."""
    make, ours, forward = PROGRAMS[request.param]
    net = make().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return request.param.split(' of ')[0].split(' normed ')[0], net, ours(), forward


def test_the_same_maps(program, tmp_path):
    name, net, ours, forward = program
    image = torch.randn(2, 3, 128, 128)
    save_file(net.state_dict(), path := str(tmp_path / 'model.safetensors'))
    load_pretrained(ours, path)
    assert find_source(net.state_dict()).name == name
    with torch.no_grad():
        torch.testing.assert_close(
            ours.eval()(image)[-1], forward(net, image), rtol=1e-5, atol=1e-5
        )
    classifier = load_from_anywhere(path)['state_dict']  # as mmpretrain's LinearClsHead has it
    assert classifier['head.fc.weight'].shape == (5, 128)
    config = backbone_config(convert_state_dict(net.state_dict()).backbone)
    assert config['type'] == type(ours).__name__


@pytest.mark.parametrize(
    'wrapper', ['model.', 'module.', '_orig_mod.model.', 'backbone.timm_model.']
)
def test_headless_and_wrapped(program, wrapper, tmp_path):
    name, net, ours, _ = program
    weights = {
        k: v for k, v in net.state_dict().items() if not k.startswith(('head', 'classifier'))
    }
    torch.save(
        dict(state_dict_ema={wrapper + k: v for k, v in weights.items()}), tmp_path / 'a.bin'
    )
    load_pretrained(ours, str(tmp_path / 'a.bin'))
    converted = convert_state_dict(net.state_dict()).backbone
    loaded = ours.state_dict()
    inner = [k for k in converted if not k.startswith('norm')]
    assert len(inner) > 80
    for key in inner:
        assert torch.equal(loaded[key], converted[key]), key


@pytest.mark.parametrize('name', ['timm Swin', 'timm Swin-V2', 'timm ConvNeXt'])
def test_feature_extractors_of_timm(name):
    """With ``features_only=True`` numbers of stages follow a '_', and nothing is after them."""
    make, _, _ = PROGRAMS[name]
    weights = {
        k.replace('layers.', 'layers_').replace('stem.', 'stem_').replace('stages.', 'stages_'): v
        for k, v in make().state_dict().items()
        if not k.startswith(('head', 'norm.'))
    }
    converted = convert_state_dict(weights)
    assert converted.source.name == name and not converted.dropped
    whole = convert_state_dict(make().state_dict()).backbone
    assert set(whole) - set(converted.backbone) == {'norm3.weight', 'norm3.bias'}


def test_a_hidden_layer_of_the_classifier_is_dropped():
    weights = ConvNeXt(**THEIR_CONVNEXT, head_hidden_size=16).state_dict()
    dropped = [old for old, _ in convert_state_dict(weights).dropped]
    assert sorted(dropped) == [
        f'head.{layer}.{kind}' for layer in ('fc', 'pre_logits.fc') for kind in ('bias', 'weight')
    ]


def test_a_teacher_of_timm(tmp_path):
    net = SwinTransformer(**THEIR_SWIN).eval()
    torch.save(net.state_dict(), path := str(tmp_path / 'timm.bin'))
    head = dict(type='LinearClsHead', num_classes=5, in_channels=128)
    backbone = dict(type='DynamicSwin', arch=SWIN, window_size=4, out_indices=(3,))
    model = dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=head,
    )
    teacher = Teacher.from_spec(dict(checkpoint=path, config=model), None, 'backbone', True)
    image = torch.randn(2, 3, 128, 128)
    torch.testing.assert_close(teacher(image).logits, net(image), rtol=1e-5, atol=1e-5)


TRANSFORMERS = {
    'transformers Swin': (
        'embeddings.patch_embeddings.projection.weight',
        'encoder.layers.0.blocks.0.attention.self.query.weight',
    ),
    'transformers ConvNeXt': (
        'embeddings.patch_embeddings.weight',
        'encoder.stages.0.layers.0.dwconv.weight',
    ),
    'timm Swin-V2-CR': ('patch_embed.proj.weight', 'stages.0.blocks.0.attn.meta_mlp.fc1.weight'),
}


@pytest.mark.parametrize('prefix', ['', 'swin.', 'backbone.', 'swinv2.', 'convnextv2.'])
@pytest.mark.parametrize('name', TRANSFORMERS)
def test_names_that_are_not_taken(name, prefix, tmp_path):
    if name.startswith('timm') and prefix.startswith(('swin', 'conv')):
        prefix = 'model.'
    weights = {prefix + key: torch.zeros(1) for key in TRANSFORMERS[name]}
    save_file(weights, path := str(tmp_path / 'model.safetensors'))
    with pytest.raises(ValueError, match=f'names of {name}, which are not known: .*take'):
        load_pretrained(swin(), path)
    with pytest.raises(ValueError, match=f'names of {name}, which are not known'):
        load_from_anywhere(path)
    assert name not in known_programs()


def test_names_that_nobody_knows_are_answered_with_those_that_are_known(tmp_path):
    torch.save({'trunk.0.weight': torch.zeros(1)}, path := str(tmp_path / 'a.pth'))
    with pytest.raises(
        ValueError, match='no weights for .*; known are names of .*timm Swin.*torchv'
    ):
        load_pretrained(swin(), path)
