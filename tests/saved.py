"""A function over a resource (a table, a tokenizer), saved as a SavedModel, read without TensorFlow, and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from porting.conversion.convert import Context, convert
from porting.flat_graph.flatten import flatten
from porting.saved_model import read
from porting.served import Served
from tests.witness import as_array, assert_equal, run, tf, to_numpy
from torch_towers.program.program import Program


def check_saved(
    folder: Path, make: Callable[[], Any], function: Callable[..., Any], *batches: Any, rows: bool = True
) -> Program:
    """Saves `function(made, x)`, which gives a list of tensors, and compares all of them on every batch. Gives the port.

    `rows` False fixes the shape of `x` to that of the first batch.
    """
    module = tf.Module()
    module.made = make()
    arrays = [as_array(batch) for batch in batches]
    first = arrays[0]
    dtype = tf.string if first.dtype == object else first.dtype
    spec = tf.TensorSpec([None, *first.shape[1:]] if rows else first.shape, dtype, "x")

    def serve(x: Any) -> dict[str, Any]:
        return {f"y{index}": item for index, item in enumerate(function(module.made, x))}

    module.serve = tf.function(serve, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    model = read(folder)
    context = Context(model, Served(onednn=False), model.captured("serving_default"))
    graph, _ = convert(flatten(model.graph("serving_default"), model.functions), context)
    program = Program(graph, context.store)
    for batch in arrays:
        expected = module.serve(tf.constant(batch))
        found = run(program, {"x": batch})
        assert set(found) == set(expected)
        for name in sorted(expected):
            assert_equal(found[name], to_numpy(expected[name]), what=name)
    return program
