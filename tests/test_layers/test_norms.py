import torch

from dynsp_mm.layers import GRN, LayerNorm2d


def test_layer_norm_2d_is_layer_norm_over_channels():
    norm = LayerNorm2d(6, eps=1e-3)
    torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 3, 5)
    expected = torch.nn.functional.layer_norm(x.movedim(1, -1), (6,), norm.weight, norm.bias, 1e-3)
    torch.testing.assert_close(norm(x), expected.movedim(-1, 1))


def test_grn_of_ragged_tokens_equals_each_image_alone():
    grn = GRN(8)
    torch.nn.init.normal_(grn.gamma), torch.nn.init.normal_(grn.beta)
    tokens, keep = torch.randn(3, 10, 8), torch.rand(3, 10) < 0.5
    keep[1] = False  # an image without a slow position
    image = torch.arange(3)[:, None].expand(3, 10)[keep]
    ragged = grn(tokens[keep], image=image, num_images=3)
    alone = torch.cat([grn(t[k][None])[0] for t, k in zip(tokens, keep)])
    torch.testing.assert_close(ragged, alone)
    # The training form weighs instead of gathering.
    weighted = grn(tokens, weight=keep[..., None].float())
    torch.testing.assert_close(weighted[keep], ragged)


def test_grn_has_finite_gradients_without_a_counted_token():
    grn = GRN(4)
    tokens = torch.randn(1, 5, 4, requires_grad=True)
    grn(tokens, weight=torch.zeros(1, 5, 1)).sum().backward()
    assert tokens.grad.isfinite().all()
