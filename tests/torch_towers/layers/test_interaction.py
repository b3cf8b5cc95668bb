"""DotInteraction gives the products that numpy gives, of vectors and of one tensor of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torch_towers.layers.interaction import DotInteraction


@pytest.mark.parametrize("with_itself", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_is_the_lower_triangle(rows: int, count: int, with_itself: bool) -> None:
    x = torch.randn(rows, count, 4, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    products = np.einsum("nid,njd->nij", x.numpy(), x.numpy())
    wanted = products[:, *np.tril_indices(count, 0 if with_itself else -1)]
    layer, whole = DotInteraction(with_itself), DotInteraction(with_itself, skip_gather=True)
    for features in ([x], x.unbind(1)) if count > 1 else ([x],):
        np.testing.assert_allclose(layer(*features).numpy(), wanted, rtol=0, atol=1e-12)
        zeros = np.tril(products, 0 if with_itself else -1).reshape(rows, count * count)
        np.testing.assert_allclose(whole(*features).numpy(), zeros, rtol=0, atol=1e-12)
    if rows:
        assert torch.autograd.gradcheck(layer, (x.requires_grad_(),)) or count == 1
