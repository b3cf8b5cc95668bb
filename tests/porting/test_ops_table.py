from pathlib import Path

from porting.ops_table import table

OPS = Path(__file__).resolve().parents[2] / "docs" / "ops.md"


def test_the_list_of_ops_is_current() -> None:
    assert OPS.read_text(encoding="utf-8") == table(), "docs/ops.md is not what the registry says: run `make docs`"
