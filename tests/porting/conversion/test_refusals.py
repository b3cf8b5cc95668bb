"""The table of refused ops, compared with TensorFlow's own list of ops."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from porting.conversion.convert import unsupported
from porting.conversion.refusals import BEFORE, REFUSALS, refusal_of
from porting.registry import CONVERTERS
from torch_towers.graph.graph import Graph, Node


def tensorflows_ops() -> set[str]:
    """Every public op of TensorFlow, and those of tensorflow_text where it is installed."""
    pytest.importorskip("tensorflow", reason="its ops are what the table is held against")
    from tensorflow.python.framework import op_def_registry

    from tests.witness import tf

    public = {name for name in dir(tf.raw_ops) if name[0].isupper()}
    text = pytest.importorskip("tensorflow_text", reason="its ops are in the table")
    libraries = Path(text.__file__).parent.rglob("_*.so")
    loaded = [tf.load_op_library(str(library)) for library in libraries if "pywrap" not in library.name]
    named = {name.replace("TFText_", "TFText>") for library in loaded for name in dir(library) if name[0].isupper()}
    return public | {name for name in named if op_def_registry.get(name) is not None}


def test_every_op_is_ported_or_refused() -> None:
    ops = tensorflows_ops()
    assert len(ops) > 1400 and "SentencepieceOp" in ops
    assert sorted(op for op in ops - set(CONVERTERS) - set(BEFORE) if refusal_of(op) is None) == []


def test_no_line_of_the_table_is_dead() -> None:
    """A name that TensorFlow does not have, or that is ported by now, is not refused."""
    left = tensorflows_ops() - set(CONVERTERS) - set(BEFORE)
    dead = [name for refusal in REFUSALS for name in refusal.names if not any(fnmatchcase(op, name) for op in left)]
    assert dead == [], ", ".join(dead)
    assert all(refusal.title and refusal.reason for refusal in REFUSALS)


def test_the_porter_says_why() -> None:
    nodes = (Node("mel", "XlaCallModule", ()), Node("unheard", "Unheard", ()))
    said = unsupported(Graph((), nodes, {}), {})
    assert "first use: mel  (XlaCallModule): a program for XLA, not a graph" in said
    assert "first use: unheard  (Unheard)" in said
