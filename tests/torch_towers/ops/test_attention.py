"""attention against its formula, in the special cases of torch's kernels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torch_towers.ops.attention import attention

LOW = -1e9


def formula(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    scores = query @ key.mT * scale
    if mask is not None:
        scores = torch.where(mask, scores, LOW) if mask.dtype == torch.bool else scores + mask
    return torch.softmax(scores, -1) @ value


def operands(rows: int, heads: int, t: int, s: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    made = torch.Generator().manual_seed(rows + 7 * heads + 31 * t + 101 * s)
    shapes = (rows, heads, t, 6), (rows, heads, s, 6), (rows, heads, s, 4)
    return [torch.randn(shape, generator=made, dtype=dtype) for shape in shapes]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    kind=st.sampled_from(["none", "bool", "float"]),
    heads_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_values_and_gradients(sizes: tuple[int, int, int, int], kind: str, heads_last: bool, seed: int) -> None:
    """Rows under a mask that lets nothing through are averages of all, and give no gradient to query and key."""
    rows, _, t, s = sizes
    given_to = [value.requires_grad_() for value in operands(*sizes)]
    allowed = torch.rand((rows, 1, t, s), generator=torch.Generator().manual_seed(seed)) < 0.4
    mask = {"none": None, "bool": allowed, "float": (~allowed).double() * LOW}[kind]
    turned = [value.transpose(1, 2) for value in given_to] if heads_last else given_to
    found = attention(*turned, mask, scale=0.5, heads_last=heads_last)
    found = found.transpose(1, 2) if heads_last else found
    expected = formula(*given_to, mask, 0.5)
    # float64; beside -1e9 a score keeps seven digits behind the point
    close = {"rtol": 1e-6, "atol": 1e-6} if kind == "float" else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(found, expected, **close)
    gradients = torch.autograd.grad((found**2).sum(), given_to)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected**2).sum(), given_to), **close)
    with torch.no_grad():
        torch.testing.assert_close(attention(*given_to, mask, scale=0.5), expected, **close)


def test_a_mask_of_more_rows_than_the_scores_gives_as_many() -> None:
    query, key, value = operands(3, 2, 1, 5)
    mask = torch.arange(20).reshape(4, 5) % 3 > 0
    expected = formula(query, key, value, mask, 1.0)
    assert expected.shape == (3, 2, 4, 4)
    torch.testing.assert_close(attention(query, key, value, mask, scale=1.0), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_place_that_may_take_nothing_takes_the_average_at_every_precision(dtype: torch.dtype) -> None:
    query, key, value = operands(2, 2, 3, 5, dtype)
    found = attention(query * 20, key, value, torch.zeros((3, 5), dtype=torch.bool), scale=1.0)
    average = value.float().mean(-2, keepdim=True).expand(found.shape).to(dtype)
    # torch adds halves up in halves, five of them
    torch.testing.assert_close(found, average, rtol=0, atol=8 * torch.finfo(dtype).eps)


def test_it_compiles_with_free_sizes() -> None:
    class Layer(torch.nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
            return attention(query, key, value, mask, scale=0.5)

    given_to = (*operands(3, 2, 4, 5), torch.rand(3, 1, 4, 5) < 0.5)
    free = {0: torch.export.Dim.AUTO}
    exported = torch.export.export(Layer(), given_to, dynamic_shapes=(free, free, free, free))
    other = (*operands(7, 2, 4, 5), torch.rand(7, 1, 4, 5) < 0.5)
    torch.testing.assert_close(exported.module()(*other), Layer()(*other))


def test_a_place_that_may_take_nothing_gets_nothing_where_it_is_empty() -> None:
    query, key, value = operands(2, 2, 3, 4)
    allowed = torch.ones(2, 1, 3, 4, dtype=torch.bool)
    allowed[1, :, 2] = False
    for last in (False, True):
        given_to = [x.transpose(1, 2) if last else x for x in (query, key, value)]
        found = attention(*given_to, allowed, scale=0.5, heads_last=last, empty=True)
        expected = torch.where(allowed.any(-1, keepdim=True), formula(query, key, value, allowed, 0.5), 0.0)
        torch.testing.assert_close(found.transpose(1, 2) if last else found, expected)
