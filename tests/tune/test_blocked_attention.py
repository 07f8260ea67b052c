"""Attention over blocks of queries gives what PyTorch's own gives, forwards and backwards."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from atlas_tune.tune import blocked_attention as blocked
from atlas_tune.tune.blocked_attention import blocked_attention


def drawn(heads, kv_heads, queries, keys, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = ((heads, queries), (kv_heads, keys), (kv_heads, keys))
    return [torch.randn(1, h, n, 8, dtype=dtype, requires_grad=True) for h, n in shapes]


def fused(query, key, value, at, window, scaling):
    keys = torch.arange(key.shape[2])
    seen = keys <= at[:, None]
    if window is not None:
        seen &= keys > at[:, None] - window
    return scaled_dot_product_attention(
        query, key, value, attn_mask=seen, scale=scaling, enable_gqa=True
    )


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)], ids=str)
@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("scaling", [None, 0.7])
@pytest.mark.parametrize("at", ["all", "last", "some"])
def test_values_and_gradients_are_those_of_fused_attention(heads, window, scaling, at, monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK", 4)  # so that there are several
    keys = 19
    places = {
        "all": torch.arange(19),
        "last": torch.arange(12, 19),
        "some": torch.tensor([0, 7, 8]),
    }
    at_S = places[at]
    given = drawn(*heads, len(at_S), keys)
    outputs = [way(*given, at_S, window, scaling) for way in (blocked_attention, fused)]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    towards = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad(output, given, towards) for output in outputs]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    given = drawn(2, 1, 3, 5)
    at_S = torch.tensor([1, 2, 4])
    assert torch.autograd.gradcheck(lambda *qkv: blocked_attention(*qkv, at_S, 3), given)


def test_low_precision_stays_near_and_autocast_asks_for_it():
    given = drawn(6, 2, 40, 40, torch.float32)
    at_S = torch.arange(40)
    exact = blocked_attention(*given, at_S)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = blocked_attention(*given, at_S)
    assert (exact.dtype, low.dtype) == (torch.float32, torch.bfloat16)
    assert (low.float() - exact).abs().max() < 0.03
    towards = torch.randn_like(exact)
    ours = torch.autograd.grad(low, given, towards.bfloat16())
    for near, wanted in zip(ours, torch.autograd.grad(exact, given, towards), strict=True):
        assert (near - wanted).abs().max() < 0.03 * wanted.abs().max()
