"""Each family by its card, one that the package does not know among them."""

import math

import pytest
import torch
import toy_family
from mmengine.config import Config
from mmengine.registry import MODELS
from toys import toy_runner

from dynsp_mm import create_backbone, families, record_decisions
from dynsp_mm.backbones.create import parse_name
from dynsp_mm.checkpoints import (
    backbone_config,
    convert_state_dict,
    find_arch,
    find_source,
    fit_state_dict,
    load_pretrained,
    write_checkpoint,
)
from dynsp_mm.configuration import sparsify
from dynsp_mm.errors import UserError
from dynsp_mm.training.new_parameters import find_sparse_backbones, is_new
from dynsp_mm.visualization.run import find_painters

KNOWN = families.all_families()
CARDS = (*KNOWN, toy_family.CARD)


@pytest.fixture
def with_toy(monkeypatch):
    """The toy family is registered for the length of a test."""
    monkeypatch.setattr(families, '_FAMILIES', dict(families._FAMILIES))
    families.register(toy_family.CARD)


@pytest.fixture(params=CARDS, ids=lambda card: card.name)
def card(request, with_toy):
    return request.param


@pytest.fixture(
    params=[(c, i) for c in CARDS for i in range(len(c.samples))],
    ids=lambda s: f'{s[0].name}-{s[1]}',
)
def sample(request, with_toy):
    """A card and the arguments of one of its tiny networks."""
    card, index = request.param
    return card, card.samples[index]


def build(card, **kwargs):
    model = MODELS.get(card.cls)(**kwargs)
    model.init_weights()
    return model


def tiny(card, **kwargs):
    return build(card, **{**card.samples[0], **kwargs})


def randomise(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)


def smallest(card):
    width = {meaning: key for key, meaning in card.size_keys.items()}

    def size(name):
        arch = card.sizes[name]
        channels = arch[width['width']] if 'width' in width else arch[width['widths']][0]
        return channels, sum(arch[width['depths']])

    return min(card.sizes, key=size)


# ---------------------------------------------------------------------- names and sizes
def test_a_card_is_found_by_each_of_its_names(card):
    for name in (card.name, card.cls, card.title, *(dense.cls for dense in card.dense)):
        assert families.find(name) is families.get(name) is card
    cls = MODELS.get(card.cls)
    assert cls.__name__ == card.cls
    assert families.of(cls) is families.of(type('Mine', (cls,), {})) is card
    assert families.of(torch.nn.Linear) is None
    with pytest.raises(UserError, match='belongs to'):
        families.register(card)


def test_every_size_and_alias(card):
    for name in card.sizes:
        aliases = [short for short, long in card.aliases.items() if long == name]
        for text in (name, *aliases, name.upper()):
            assert families.resolve_size(card, text) == families.resolve_size(card.name, name)
            cls, arguments = parse_name(f'{card.name}_{text}', {})
            assert cls is MODELS.get(card.cls) and arguments['arch'] == name
            assert arguments['out_indices'] == card.all_stages
    unknown = [short for short, long in card.aliases.items() if long not in card.sizes]
    for text in ('vast', *unknown):
        rule = f"arch='{text}': must be one of {next(iter(card.sizes))}"
        with pytest.raises(UserError, match=rule):
            families.resolve_size(card, text)
        with pytest.raises(UserError, match=f'the sizes of {card.name} are'):
            parse_name(f'{card.name}_{text}', {})


def test_a_size_as_a_dict(card):
    keys = list(card.size_keys)
    size = dict(families.resolve_size(card, smallest(card)))
    lists = {key: list(v) if isinstance(v, tuple) else v for key, v in size.items()}
    assert families.resolve_size(card, lists) == size
    for bad in ({k: size[k] for k in keys[1:]}, None, 7, {}):
        with pytest.raises(UserError, match=f'a dict needs .*the keys {", ".join(keys)}'):
            families.resolve_size(card, bad)
    if not card.more_size_keys:
        with pytest.raises(UserError, match='exactly the keys'):
            families.resolve_size(card, dict(size, more=1))
    depths = next(key for key, meaning in card.size_keys.items() if meaning == 'depths')
    with pytest.raises(UserError, match=f'{depths}=3: must be a sequence'):
        families.resolve_size(card, {**size, depths: 3})
    if sum(isinstance(v, tuple) for v in size.values()) > 1:
        with pytest.raises(UserError, match='must have the same length'):
            families.resolve_size(card, {**size, depths: size[depths][1:]})


def test_the_class_takes_names_and_aliases(card):
    name = 'tiny'
    alias = next(short for short, long in card.aliases.items() if long == name)
    depths = next(key for key, meaning in card.size_keys.items() if meaning == 'depths')
    for text in (name, alias):
        model = MODELS.get(card.cls)(text)
        assert model.depths == card.sizes[name][depths]


# ---------------------------------------------------------------------- networks
@pytest.mark.parametrize('size', [(33, 65), (64, 100)])
@pytest.mark.parametrize('batch', [1, 2, 3])
def test_maps_of_the_smallest_size(card, size, batch):
    name = smallest(card)
    ratios = dict(keep_ratios=0.7) if card.spatial else {}
    model = create_backbone(f'{card.name}_{name}', **ratios).eval()
    width = find_arch(model.state_dict()).width
    with torch.no_grad():
        maps = model(torch.randn(batch, 3, *size))
    assert len(maps) == len(card.strides)
    for i, (out, stride) in enumerate(zip(maps, card.strides)):
        assert out.shape[:2] == (batch, width * 2**i) and out.isfinite().all()
        for length, side in zip(out.shape[2:], size):  # stages pad, or leave a rest out
            assert side // stride <= length <= math.ceil(side / stride)


def test_gradients_reach_each_parameter(sample):
    card, arguments = sample
    model = build(card, **arguments)
    randomise(model)
    maps = model.train()(torch.randn(2, 3, 128, 160))
    sum((out * torch.randn_like(out)).sum() for out in maps).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_pooled_vectors(card):
    if card.pooled is None:
        return
    model, maps = (tiny(card, **{card.pooled: pooled}).eval() for pooled in (True, False))
    assert getattr(model, card.pooled) is True
    maps.load_state_dict(model.state_dict())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert [out.dim() for out in model(image)] == [2] * len(card.strides)
        assert [out.dim() for out in maps(image)] == [4] * len(card.strides)
    assert card.maps[card.pooled] is False


def test_small_images(card):
    model = tiny(card)
    with pytest.raises(ValueError, match=f'{card.cls}: .*at least {card.min_side} pixels'):
        model(torch.zeros(1, 3, card.min_side - 1, 64))


def test_decisions_are_recorded(card):
    model = tiny(card).eval()
    with torch.no_grad(), record_decisions(model) as log:
        model(torch.randn(2, 3, 64, 96))
    assert families.takes_decisions(model) == bool(card.spatial)
    assert len(log) == (len(model.keep_ratios) if card.spatial else 0)
    assert len(log.by_predictor()) == len(log)
    spatial = [name for name in model.state_dict() if is_new(name)]
    assert bool(spatial) == bool(card.spatial)
    if not card.spatial:
        return
    assert all(is_new(f'student.backbone.{name}') for name in spatial)
    holder = torch.nn.ModuleDict(dict(backbone=model))
    assert find_sparse_backbones(holder, 'Hook') == dict(backbone=model)
    assert [painter.backbone for painter in find_painters(holder)] == [model]


def test_messages_name_every_sparse_class(with_toy):
    assert families.how_to_make_sparse() == (
        'give a DynamicSwin, DynamicSwinV2, DynamicConvNeXt or ToyNet backbone keep_ratios below 1'
    )
    with pytest.raises(
        ValueError, match='Hook: Linear has no token predictors.*or ToyNet backbone'
    ):
        find_sparse_backbones(torch.nn.Linear(1, 1), 'Hook')
    with pytest.raises(ValueError, match='must be one of dynamic_swin,.* stvit_swin, toy, then'):
        create_backbone('resnet_t')
    with pytest.raises(ValueError, match='unknown kind of checkpoint.*; files of toys$'):
        convert_state_dict({'conv1.weight': torch.zeros(1)})


# ---------------------------------------------------------------------- swapping
def test_configs_of_the_dense_classes(card):
    for dense in card.dense:
        for library in ('mmdet', 'mmseg', 'mmpretrain'):
            for kind, scope in ((dense.cls, library), (f'{library}.{dense.cls}', 'other')):
                cfg = Config(dict(default_scope=scope, model=dict(backbone=dict(type=kind))))
                sparsify(cfg, 0.7)
                backbone = dict(cfg.model.backbone)
                assert backbone.pop('type') == card.cls
                assert backbone == dict(keep_ratios=0.7, **dense.defaults.get(library, {}))
                assert families.takes_decisions(MODELS.get(card.cls)(**backbone))
    for name, why in card.unlike.items():
        with pytest.raises(
            ValueError, match=f'is a {name} .{why}.; what can be made sparse are Sw'
        ):
            sparsify(Config(dict(model=dict(backbone=dict(type=name)))), 0.7)
    own = Config(dict(model=dict(backbone=dict(type=card.cls))))
    if card.spatial:
        sparsify(own, 0.8)
        assert own.model.backbone == dict(type=card.cls, keep_ratios=0.8)
    else:
        with pytest.raises(ValueError, match=f'is a {card.cls}; what can be made sparse are'):
            sparsify(own, 0.8)


# ---------------------------------------------------------------------- checkpoints
def test_weights_of_the_dense_classes(card):
    """By name and shape, every tensor of the dense network has its place."""
    from mmpretrain.registry import MODELS as LIBRARY

    name = smallest(card)
    for dense in card.dense:
        out_indices = card.all_stages
        cls = LIBRARY.get(f'mmpretrain.{dense.cls}') or LIBRARY.get(dense.cls)
        weights = cls(arch=name, out_indices=out_indices)
        weights = weights.state_dict()
        ours = build(card, arch=name, keep_ratios=0.7, **card.maps)
        assert find_source(weights).name == card.names.source
        fit = fit_state_dict(convert_state_dict(weights).backbone, ours)
        assert fit.unused == fit.missing == [] and fit.new
        assert all(is_new(key) for key in fit.new)


def test_weights_of_relatives(card):
    for relative in map(families.get, card.relatives):
        ours, theirs = tiny(card), build(relative, arch=card.samples[0]['arch'])
        fit = fit_state_dict(theirs.state_dict(), ours)
        stem = card.names.stem_names
        assert all(name.startswith((*stem, 'norm', 'absolute_pos_embed')) for name in fit.missing)
        assert len(fit.unused) < len(fit.state_dict) / 2
        with pytest.raises(ValueError, match=f'a checkpoint of {card.title}, another arch'):
            fit_state_dict(ours.state_dict(), theirs)


def test_own_files_come_back(sample, tmp_path):
    """The config is read off the names; conversion changes nothing; the outputs are the same."""
    card, arguments = sample
    model = build(card, **arguments).eval()
    randomise(model)
    weights = model.state_dict()
    assert families.named_like(weights) is card
    conversion = convert_state_dict({f'backbone.{k}': v for k, v in weights.items()})
    assert conversion.source.native and conversion.source.name == card.names.source
    assert set(conversion.backbone) == set(weights) and conversion.dropped == []
    config = backbone_config(conversion.backbone)
    assert config['type'] == card.cls
    again = MODELS.build(config)
    fit = fit_state_dict(weights, again)
    assert fit.unused == fit.missing == fit.new == [] and fit.split == {}
    for key, value in fit.state_dict.items():
        assert torch.equal(value, weights[key]), key
    path = str(tmp_path / 'own.pth')
    write_checkpoint(conversion.state_dict, 'test', path)
    load_pretrained(again, path)
    if card.spatial:
        model.keep_ratios = again.keep_ratios
    image = torch.randn(1, 3, 288, 320)  # no map smaller than a window, where styles differ
    with torch.no_grad():
        for a, b in zip(again.eval()(image), model(image)):
            torch.testing.assert_close(a, b)


def test_a_strange_name_is_unknown_with_and_without_the_model(card):
    model = tiny(card)
    weights = model.state_dict()
    block = next(name for name in weights if card.names.needed[0] in name)
    strange = block.rpartition('.')[0] + '.temperature'
    for loader in (None, model):
        with pytest.raises(ValueError, match=f'{card.names.source}: 1 unknown key.*temperature'):
            convert_state_dict({**weights, strange: torch.zeros(1)}, model=loader)
    for pattern, reason in card.names.dropped.items():
        buffer = pattern.replace('.*', 'x').replace(r'\.', '.')
        buffer = buffer.replace('(position_index|coords_table)', 'position_index')
        dropped = convert_state_dict({**weights, buffer: torch.zeros(1)}).dropped
        assert dropped == [(buffer, reason)]


def test_names_are_read_without_random_numbers(card):
    """Loading a file must not change the random start of what is built after it."""
    from dynsp_mm.checkpoints.sources.openmmlab import vocabulary

    vocabulary.cache_clear()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert vocabulary(card)
    assert torch.equal(torch.rand(4), expected)


def test_a_file_is_repaired_once(card, tmp_path, monkeypatch):
    from dynsp_mm.checkpoints import fit

    model = tiny(card)
    path = str(tmp_path / 'own.pth')
    write_checkpoint(model.state_dict(), 'test', path)
    asked = []
    of = families.of
    monkeypatch.setattr(fit.families, 'of', lambda m: asked.append(m) or of(m))
    load_pretrained(model, path)
    assert asked == [model]
    model.load_state_dict(model.state_dict())  # another way in repairs as well
    assert len(asked) == 2


# ---------------------------------------------------------------------- the toy family
def test_the_toy_family_trains_with_the_hooks(with_toy, tmp_path):
    backbone = dict(type='ToyNet', keep_ratios=0.7, pooled=False)
    hooks = [dict(type='SpatialSparsityHook'), dict(type='KeepRatioAnnealingHook', end=2)]
    runner = toy_runner(tmp_path, hooks, backbone)
    model = runner.model.backbone
    before = [p.detach().clone() for p in model.token_predictors.parameters()]
    runner.train()
    assert not any(torch.equal(a, b) for a, b in zip(before, model.token_predictors.parameters()))


def test_a_release_of_the_toymaker(with_toy, tmp_path):
    """A table in a module that the card names: converted, fitted and loaded."""
    model = create_backbone('toy_t')
    release = {'toy_buffer': torch.zeros(1)}
    for name, value in model.state_dict().items():
        name = name.replace('stem_of_toys', 'toystem').replace('slow.', '')
        release[name.replace('levels.', 'toys.')] = value + 1
    assert find_source(release).name == "toymaker's release"
    conversion = convert_state_dict(release)
    assert conversion.dropped == [('toy_buffer', 'nobody needs it')]
    assert find_arch(conversion.backbone).name == 'Toy tiny'
    path = str(tmp_path / 'release.pth')
    torch.save(dict(model=release), path)
    sparse = create_backbone('toy_t', keep_ratios=0.7, checkpoint=path)
    for name, value in model.state_dict().items():
        assert torch.equal(sparse.state_dict()[name], value + 1)
    with pytest.raises(
        ValueError, match=r'a checkpoint of Toy tiny, another arch than this ToyNet'
    ):
        create_backbone('toy_huge', checkpoint=path)
    with pytest.raises(ValueError, match="toymaker's release: 1 unknown key.s.: toys.0.9.wheel"):
        convert_state_dict({**release, 'toys.0.9.wheel': torch.zeros(1)})
