"""Stems of networks for images of other than three channels."""

import logging

import pytest
import torch
from mmengine.registry import MODELS

from dynsp_mm import families
from dynsp_mm.checkpoints import backbone_config, fit_state_dict, load_pretrained, load_whole


@pytest.fixture(params=families.all_families(), ids=lambda card: card.name)
def card(request):
    return request.param


def tiny(card, channels):
    model = MODELS.get(card.cls)(**card.samples[0], in_channels=channels)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


@pytest.fixture
def said(monkeypatch):
    lines = []

    def note(text, logger=None, level=logging.INFO):
        lines.append((level, text))

    monkeypatch.setattr('dynsp_mm.checkpoints.load.print_log', note)
    return lines


def warnings_of(said):
    return [text for level, text in said if level == logging.WARNING]


def test_grey_images_are_seen_as_rgb_images_of_equal_channels(card, said, tmp_path):
    rgb, grey = tiny(card, 3).eval(), tiny(card, 1).eval()
    torch.save(rgb.state_dict(), path := str(tmp_path / 'rgb.pth'))
    load_pretrained(grey, path)
    (text,) = warnings_of(said)
    stem = card.names.image_weight
    assert text == (
        f'{card.cls}: {stem} is the sum of the kernels for red, green and blue, for in_channels=1'
    )
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(grey(image), rgb(image.expand(1, 3, 64, 64))):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('theirs,ours', [(3, 4), (3, 2), (1, 3), (4, 1)])
def test_other_counts_start_the_stem_anew_and_say_so(card, theirs, ours, said, tmp_path):
    source, model = tiny(card, theirs), tiny(card, ours)
    torch.save(source.state_dict(), path := str(tmp_path / 'a.pth'))
    stem = card.names.image_weight
    before = model.state_dict()[stem].clone()
    load_pretrained(model, path)
    (text,) = warnings_of(said)
    assert text == (
        f'{card.cls}: {stem} is new and not trained: it is for images of {theirs} channels in the '
        f'file and of in_channels={ours} here'
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, before if name == stem else source.state_dict()[name]), name
    fit = fit_state_dict(source.state_dict(), model)
    assert fit.new == [stem] and fit.missing == fit.unused == []


def test_a_plain_load_says_it_once(card, said):
    model = tiny(card, 4)
    weights = tiny(card, 3).state_dict()
    for _ in range(2):  # weights are loaded once to be checked
        model.load_state_dict(weights, strict=False)
    assert len(warnings_of(said)) == 1


def test_a_whole_model_must_have_its_stem(card):
    model = torch.nn.ModuleDict(dict(backbone=tiny(card, 4)))
    weights = {f'backbone.{k}': v for k, v in tiny(card, 3).state_dict().items()}
    with pytest.raises(ValueError, match='backbone.* has shape .*: it is for images of other chan'):
        load_whole(model, weights, optional=lambda name: False)
    grey = torch.nn.ModuleDict(dict(backbone=tiny(card, 1)))
    load_whole(grey, weights, optional=lambda name: False)


def test_the_channels_are_read_off(card):
    assert backbone_config(tiny(card, 5).state_dict())['in_channels'] == 5


def test_other_differences_of_the_stem_are_errors(card):
    model, weights = tiny(card, 4), tiny(card, 3).state_dict()
    stem = card.names.image_weight
    weights[stem] = weights[stem][..., :1]
    with pytest.raises(ValueError, match=f'{stem} has shape'):
        fit_state_dict(weights, model)
