"""A converter without a conformance case does not pass."""

from __future__ import annotations

import importlib
import pkgutil

from porting.convert import CONVERTERS, load_converters
from tests.porting import converters


def test_every_op_has_a_case() -> None:
    load_converters()
    covered: set[str] = set()
    for file in pkgutil.iter_modules(converters.__path__):
        if file.name.startswith("test_") and file.name != "test_coverage":
            tests = importlib.import_module(f"{converters.__name__}.{file.name}")
            covered |= {row.op for row in getattr(tests, "CASES", ())} | set(getattr(tests, "COVERED", ()))
    assert set(CONVERTERS) - covered == set()
