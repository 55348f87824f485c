"""What every backend is held to: the steps of eager torch in float64.

Each check takes a backend and a dtype and asserts that the step's error lies within the tolerance
that the backend declares for the dtype.
"""

import torch
import torch.nn.functional as F

# Channels of input and output, and tokens: odd, one, none, and more than a block of any kernel.
SIZES = [(17, 24, 130), (96, 33, 5), (16, 16, 1), (8, 12, 0)]


def random(backend, dtype, *shape):
    return torch.randn(*shape, device=backend.device).to(dtype)


def random_rows(backend, chosen, tokens):
    return torch.randperm(tokens, device=backend.device)[:chosen]


def assert_near(backend, got, exact):
    """Compares a result with that of float64."""
    assert got.dtype in backend.tolerances and got.device.type == backend.device.type
    assert got.shape == exact.shape
    if exact.numel():
        error = (got.double() - exact).abs().max() / exact.abs().max()
        assert error <= backend.tolerances[got.dtype], f'{error:.2e}'


def check_linear(backend, dtype):
    for C, out, K in SIZES:
        for bias in (None, random(backend, dtype, out)):
            x, weight = random(backend, dtype, K, C), random(backend, dtype, out, C)
            layer = backend.pack(weight, bias)
            exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
            assert_near(backend, backend.linear(x, layer), exact)
            assert_near(backend, backend.linear_gelu(x, layer), F.gelu(exact))


def check_packing_copies(backend, dtype):
    x, weight = random(backend, dtype, 3, 17), random(backend, dtype, 24, 17)
    bias = random(backend, dtype, 24)
    exact = F.linear(x.double(), weight.double(), bias.double())
    layer = backend.pack(weight, bias)
    weight.zero_()
    bias.zero_()
    assert_near(backend, backend.linear(x, layer), exact)


def check_gather_norm(backend, dtype):
    for C, _, K in SIZES:
        tokens = 1 + random(backend, dtype, K + 7, C)
        for rows in (None, random_rows(backend, K, K + 7)):
            chosen = tokens if rows is None else tokens[rows]
            exact = F.layer_norm(chosen.double(), (C,), eps=0.1)
            assert_near(backend, backend.gather_norm(tokens, rows, 0.1), exact)


def check_linear_add(backend, dtype):
    for C, out, K in SIZES:
        for bias in (None, random(backend, dtype, out)):
            weight = random(backend, dtype, out, C)
            layer = backend.pack(weight, bias)
            for rows in (None, random_rows(backend, K, K + 7)):
                x = random(backend, dtype, K, C)
                target = random(backend, dtype, K if rows is None else K + 7, out)
                exact = target.double()
                exact[slice(None) if rows is None else rows] += F.linear(
                    x.double(), weight.double(), None if bias is None else bias.double()
                )
                others = torch.ones(len(target), dtype=torch.bool, device=target.device)
                others[slice(None) if rows is None else rows] = False
                before = target.clone()
                backend.linear_add_(target, rows, x, layer)
                assert_near(backend, target, exact)
                assert torch.equal(target[others], before[others])


def check_attend(backend, dtype):
    windows, heads, n, d = 6, 3, 9, 8
    scores = (windows, heads, n, n)
    for shape in (None, (1, heads, n, n), (windows, 1, n, n), scores):
        # As they come: views of one projection.
        qkv = random(backend, dtype, windows * n, 3 * heads * d)
        q, k, v = qkv.view(windows, n, 3, heads, d).permute(2, 0, 3, 1, 4)
        bias = None if shape is None else random(backend, dtype, *shape)
        exact = q.double() @ k.double().transpose(-2, -1)
        if bias is not None:
            exact = exact + bias.double()
        exact = exact.softmax(-1) @ v.double()
        assert_near(backend, backend.attend(q, k, v, bias), exact)


def check_convolve(backend, dtype):
    B, C, H, W = 2, 12, 9, 11
    conv = torch.nn.Conv2d(C, C, 7, padding=3, groups=C).to(backend.device, dtype)
    x = random(backend, dtype, B, H, W, C).permute(0, 3, 1, 2)
    # A GPU would round float32 to TF32.
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        got = backend.convolve(conv, x)
        exact = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=3, groups=C)
        assert_near(backend, got, exact)
        # Weights are read at each call.
        conv.weight.zero_()
        exact = conv.bias.double()[:, None, None].expand_as(exact)
        assert_near(backend, backend.convolve(conv, x), exact)


CHECKS = (
    check_linear,
    check_packing_copies,
    check_gather_norm,
    check_linear_add,
    check_attend,
    check_convolve,
)
