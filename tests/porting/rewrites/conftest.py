"""SavedModels, built once per run, as TensorFlow runs them, as the port runs them op by op, and lifted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from porting.conversion.convert import Context, convert
from porting.flat_graph.flatten import flatten
from porting.lifting.lift import Lifted, lift
from porting.saved_model import read
from porting.served import Served
from tests.afresh import start_afresh
from tests.porting.rewrites.models import build
from tests.witness import run, tf, to_numpy, to_runtime
from torch_towers.program.program import Program


@dataclass
class Exported:
    """A SavedModel and its ports."""

    signature: Any
    plain: Program
    program: Program
    lifted: Lifted

    def tensorflow(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """TensorFlow's answer."""
        found = self.signature(**{name: tf.constant(value) for name, value in batch.items()})
        return {name: to_numpy(value) for name, value in found.items()}

    def check(self, batch: Mapping[str, np.ndarray], ulp: float = 64) -> dict[str, np.ndarray]:
        """All agree: ids, strings and shapes exactly, floats within `ulp` of the largest value in an output."""
        expected, plain, found = self.tensorflow(batch), run(self.plain, batch), run(self.program, batch)
        for name, theirs in expected.items():
            alone = run(self.program.narrowed(frozenset({name})), batch)
            assert alone.keys() == {name}
            for which, ours in (("op by op", plain[name]), ("lifted", found[name]), ("alone", alone[name])):
                mine = ours.detach().numpy() if isinstance(ours, Tensor) else ours
                assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype), f"{which}: {name}"
                if mine.dtype.kind != "f":
                    assert np.array_equal(mine, theirs), f"{which}: {name}: {mine!r}, TensorFlow has {theirs!r}"
                elif mine.size:
                    bound = ulp * float(np.spacing(np.abs(theirs).max()))
                    np.testing.assert_allclose(mine, theirs, rtol=0, atol=bound, err_msg=f"{which}: {name}")
        return expected

    def check_gradients(self, batch: Mapping[str, np.ndarray], ulp: float = 256) -> None:
        """The gradient of every trained weight is TensorFlow's, within `ulp` of the largest of all, from which they are made.

        Some are nothing but what is left of such terms: a softmax does not see the bias of its keys. Weights are found by their values, which are drawn, since a layer lays a kernel out in its own way.
        """
        self.program.zero_grad()
        found = self.program(**{name: to_runtime(value) for name, value in batch.items()})
        torch.stack([(value**2).sum() for value in found.values()]).sum().backward()
        with tf.GradientTape() as tape:
            theirs = self.signature(**{name: tf.constant(value) for name, value in batch.items()})
            loss = tf.add_n([tf.reduce_sum(value**2) for value in theirs.values()])
        variables = self.signature.trainable_variables
        gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(loss, variables)]
        expected = [
            _by_value(variable.numpy(), gradient) for variable, gradient in zip(variables, gradients, strict=True)
        ]
        assert len(list(self.program.parameters())) == len(expected)
        bound = ulp * float(np.spacing(max(np.abs(gradient).max() for _, gradient in expected)))
        for name, weight in self.program.named_parameters():
            assert weight.grad is not None, name
            values, mine = _by_value(weight.detach().numpy(), weight.grad.numpy())
            gradient = next(theirs for found, theirs in expected if np.array_equal(found, values))
            np.testing.assert_allclose(mine, gradient, rtol=0, atol=bound, err_msg=name)

    def check_gradients_of_ops(self, batch: Mapping[str, np.ndarray]) -> None:
        """The gradients of all weights and float inputs are those of the ops, in float64; each weight's number by number,
        since a layer may divide a weight, or join several. Those of the ops are TensorFlow's: the tests of each op compare
        them.
        """
        found: list[list[Tensor]] = []
        for program in (self.plain, self.program):
            program.double().zero_grad()
            try:
                given = {name: to_runtime(value) for name, value in batch.items()}
                floats = {
                    name: value.double().requires_grad_() for name, value in given.items() if value.is_floating_point()
                }
                outputs = program(**{**given, **floats})
                torch.stack([(value * value).sum() for value in outputs.values()]).sum().backward()
                weights = list(program.parameters())
                values = torch.cat([weight.detach().flatten() for weight in weights])
                of_weights = torch.cat(
                    [torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in weights]
                )
                of_inputs = [value.grad for value in floats.values() if value.grad is not None]
                found.append([of_weights[values.argsort()], *of_inputs])
            finally:
                program.float()
        for plain, lifted in zip(*found, strict=True):
            torch.testing.assert_close(lifted, plain, rtol=1e-9, atol=1e-9)  # float64 in another order

    def kind(self, output: str) -> str:
        """The op, or the type of the module, that gives an output."""
        ref = self.lifted.graph.outputs[output].partition(":")[0]
        node = next(node for node in self.lifted.graph.nodes if node.name == ref)
        return self.lifted.graph.modules[str(node.attrs["module"])].type if node.op == "module" else node.op

    def refusal(self, layer: str) -> str:
        """All sentences that say why something is not a `layer`."""
        return "\n".join(sentence for sentence in self.lifted.refusals if sentence.startswith(f"{layer}: "))


def _by_value(values: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A weight's values in ascending order, and its gradient in that order."""
    order = np.argsort(values, axis=None)
    return values.reshape(-1)[order], gradient.reshape(-1)[order]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """`exported("keras tensors")`: the SavedModel of that name, built at its first use."""
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            start_afresh()
            made[name] = export(build(name, tmp_path_factory.mktemp("exported")))
        return made[name]

    return get


def export(path: Path, entry: str = "serving_default") -> Exported:
    """A signature of a SavedModel, and its ports."""
    loaded = tf.saved_model.load(str(path))
    model = read(path)
    context = Context(model, Served(onednn=False), model.captured(entry))
    graph, emitter = convert(flatten(model.graph(entry), model.functions), context)
    lifted = lift(graph, context.store, emitter.known)
    signature = loaded.signatures[entry]
    signature.model = loaded  # a signature does not keep its model alive
    with torch.no_grad():
        return Exported(signature, Program(graph, context.store), Program(lifted.graph, lifted.store), lifted)
