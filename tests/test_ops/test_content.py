import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from dynsp_mm.ops import find_content, plan_windows
from dynsp_mm.ops.content import ImageContent

STRIDES = ((4, 4), (8, 8))


def batch(*sizes, padded):
    images = torch.zeros(len(sizes), 3, *padded)
    for image, (height, width) in zip(images, sizes):
        image[:, :height, :width] = torch.randn(3, height, width)
    return images


@pytest.mark.parametrize(
    'sizes,padded,expected',
    [
        ([(64, 96)], (64, 96), None),
        ([(50, 60)], (64, 160), None),  # it is alone
        ([(64, 96), (50, 70)], (64, 96), None),  # single images are padded to these
        ([(64, 96), (30, 10)], (64, 96), [(64, 96), (32, 32)]),
        ([(64, 96), (0, 0)], (64, 96), None),  # nothing but zeros is an image
        ([(64, 60), (64, 20)], (64, 160), None),  # alone they have this width, too
        ([(64, 60), (20, 20)], (64, 160), [(64, 160), (32, 160)]),
        ([(250, 100), (128, 90)], (250, 100), [(250, 100), (128, 96)]),
        ([(1, 1), (5, 200)], (5, 200), [(5, 32), (5, 200)]),
    ],
)
def test_content_ends_where_zeros_begin(sizes, padded, expected):
    contents = find_content(batch(*sizes, padded=padded), STRIDES)
    if expected is None:
        assert contents is None
    else:
        assert contents == tuple(ImageContent(tuple(expected), padded, s) for s in STRIDES)


def test_zeros_inside_an_image_and_left_of_it_are_content():
    images = torch.zeros(2, 1, 64, 64)
    images[:, :, 60:, 60:] = float('nan')
    assert find_content(images, STRIDES) is None


def test_nothing_is_found_without_values():
    images, found = batch((8, 8), (64, 64), padded=(64, 64)), []

    def look(x):
        found.append(find_content(x, STRIDES))
        return x + 1

    find_content(images.to('meta'), STRIDES)
    torch.jit.trace(look, images, check_trace=False)
    torch.vmap(look)(images.unsqueeze(0))
    with FakeTensorMode() as mode:
        look(mode.from_tensor(images))
    make_fx(look)(images)
    assert len(found) >= 4 and not any(found)
    assert find_content(images, STRIDES) is not None
    with FlopCounterMode(display=False):  # a mode that computes
        assert find_content(images, STRIDES) is not None


def test_content_of_a_map():
    image = ImageContent(((64, 32), (128, 96)), (128, 96), (16, 16))
    content = image.on((8, 6), torch.device('cpu'))
    assert content.sizes == ((4, 2), (8, 6)) and content.counts == [8, 48]
    mask = content.mask.view(2, 8, 6)
    assert mask[0, :4, :2].all() and mask[0].sum() == 8 and mask[1].all()
    x = torch.randn(2, 48, 5, dtype=torch.bfloat16)
    mean = content.mean(x)
    assert mean.dtype is x.dtype
    expected = x[0].view(8, 6, 5)[:4, :2].float().mean((0, 1))
    torch.testing.assert_close(mean[0, 0].float(), expected, atol=1e-2, rtol=1e-2)
    cleared = content.clear(x)
    assert torch.equal(cleared[1], x[1]) and cleared[0, ~content.mask[0]].eq(0).all()
    first, second = content.split(1)
    assert second.sizes == ((8, 6),) and torch.equal(first.mask, content.mask[:1])


@pytest.mark.parametrize('stride', [4, 8, 16, 32])
@pytest.mark.parametrize('padded', [131, 250, 256, 333])
def test_whole_units_are_whole_positions(stride, padded):
    """Whether the network rounds its maps up or down."""
    image = ImageContent(((128, 128),), (padded, padded), (stride, stride))
    for side in (-(-padded // stride), padded // stride):
        content = image.on((side,) * 2, torch.device('cpu'))
        assert content.sizes == ((128 // stride,) * 2,)


@pytest.mark.parametrize('shift', [0, 2])
def test_windows_do_not_see_padding(shift):
    """The plan of a small map in a larger one has the small map's rows and masks."""
    device = torch.device('cpu')
    plan = plan_windows(1, (9, 11), 4, shift, device, sizes=((6, 5),))
    alone = plan_windows(1, (6, 5), 4, shift, device)
    rows = torch.arange(9 * 11).view(9, 11)[:6, :5].flatten()
    assert torch.equal(plan.inner, rows[alone.inner])
    assert set(plan.border.tolist()) == set(rows[alone.border].tolist())
    everywhere = torch.cat([plan.inner, plan.border]).sort().values
    assert torch.equal(everywhere, rows)
