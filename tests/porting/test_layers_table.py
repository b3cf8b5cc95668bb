from pathlib import Path

from porting.layers_table import table
from porting.lifting.registry import REWRITES
from porting.rewrites import ORDER

LAYERS = Path(__file__).resolve().parents[2] / "docs" / "layers.md"


def test_the_list_of_layers_is_current() -> None:
    assert LAYERS.read_text(encoding="utf-8") == table(), (
        "docs/layers.md is not what the registry says: run `make docs`"
    )


def test_every_file_is_in_the_order_and_every_rewrite_says_what_it_finds() -> None:
    assert set(REWRITES) == set(ORDER)
    assert "|  |\n" not in table().replace("| --- | --- |\n", ""), "a rewrite without a docstring"
