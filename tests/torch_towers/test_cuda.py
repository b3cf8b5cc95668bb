"""On a CUDA device the encoder gives the CPU's numbers, in batches whose copies overlap, and halves what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.torch_towers.towers import word_tower

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

ROWS: Any = {"word": ["red", "green", "blue", "other"] * 50, "size": [i / 7 for i in range(200)]}


@pytest.mark.parametrize("batch_size", [1000, 64, 7])
@pytest.mark.parametrize("to_numpy", [True, False])
def test_equals_the_cpu(batch_size: int, to_numpy: bool) -> None:
    tower, wanted = word_tower(), word_tower().encode(ROWS)
    found = tower.to("cuda").encode(ROWS, batch_size=batch_size, convert_to_numpy=to_numpy)
    assert isinstance(found, np.ndarray) if to_numpy else found.device.type == "cuda"
    torch.testing.assert_close(torch.as_tensor(found).cpu(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision_on_request(dtype: torch.dtype) -> None:
    found = word_tower().to("cuda", dtype).encode(ROWS)
    assert found.dtype == dtype
    torch.testing.assert_close(found.cpu().float(), word_tower().encode(ROWS), rtol=2e-2, atol=2e-2)


def test_tf32_stays_off_unless_it_is_asked_for() -> None:
    tower, seen = word_tower().to("cuda"), []
    tower.encoder.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    tower.encode(ROWS)
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        tower.encode(ROWS)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert seen == [False, True]
