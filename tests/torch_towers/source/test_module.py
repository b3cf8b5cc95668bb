"""The source of the demo, and of graphs made by hand."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.torch_towers.ports import checkpoint
from tests.torch_towers.source.bert import bert
from torch_towers import TwoTower
from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.graph.registry import MODULES
from torch_towers.graph.spec import TowerSpec
from torch_towers.source.check import imported
from torch_towers.source.layout import layout
from torch_towers.source.module import Source, source_of, written
from torch_towers.tower import Tower

ROOT = Path(__file__).parents[3]
PACKAGES = ROOT / "checkpoints" / "packages"


def tower_of(graph: Graph, store: dict[str, Tensor]) -> Tower:
    """A tower whose encoder is this graph, without preprocessing."""
    inputs = graph.inputs
    preprocess = Graph(inputs, (), {spec.name: spec.name for spec in inputs})
    outputs = tuple(TensorSpec(name, "float32", None) for name in graph.outputs)
    return Tower(TowerSpec(preprocess, graph, None, inputs, outputs), store)


def made(graph: Graph, store: dict[str, Tensor], name: str = "made") -> Source:
    return written(TwoTower(query=tower_of(graph, store)), {"query": {}}, name)


def test_the_example_is_what_the_command_prints() -> None:
    """`torch-towers source checkpoints/packages -o examples/packages/towers.py` after a change of either."""
    assert (ROOT / "examples" / "packages" / "towers.py").read_text() == source_of(PACKAGES).text


def test_the_demos_query_tower_is_short_and_needs_torch_alone() -> None:
    text = source_of(PACKAGES).text
    tree = ast.parse(text)
    tower = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "QueryTower")
    assert tower.end_lineno - tower.lineno < 40
    assert "torch_towers" not in {name.split(".")[0] for name in _imports(tree)}
    assert "self.dense = nn.Linear(32, 128)" in text


def test_shapes_and_layers(tmp_path: Path) -> None:
    """What is compiled, exported with a free batch, and trained is a module as any other."""
    file = tmp_path / "towers.py"
    file.write_text(source_of(checkpoint()).text)
    towers = imported(file).load(checkpoint())
    words = torch.randint(0, 4000, (3, 40))
    expected = towers.query(words)
    exported = torch.export.export(towers.query, (words,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(exported.module()(words[:2]), expected[:2])
    compiled = torch.compile(towers.query, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(words), expected)
    expected.sum().backward()
    assert towers.query.dense.weight.grad.abs().sum() > 0
    assert towers.similarity(expected, expected).diagonal().allclose(torch.ones(3))


HOSTILE = '"""\n\nimport os\nos.system("touch pwned")\n\'\'\'\\'


def test_what_a_checkpoint_says_is_data_in_its_source(tmp_path: Path) -> None:
    """Names and strings of somebody's file are literals, or identifiers, or are not there."""
    graph = Graph(
        (TensorSpec("x", "float32", ("batch", 4)), TensorSpec(HOSTILE, "float32", ("batch", 4))),
        (
            Node("class", "module", ("x",), {"module": "class"}),
            Node("import.2", "einsum", ("class", HOSTILE), {"equation": f"ab,ab->a{HOSTILE}"}),
            Node("__import__", "add", ("class", "class")),
        ),
        {HOSTILE: "import.2", "b": "__import__"},
        {"class": ModuleSpec("Linear", {"in_features": 4, "out_features": 4, "bias": True})},
    )
    store = {"class.weight": torch.ones(4, 4), "class.bias": torch.ones(4)}
    text = made(graph, store, HOSTILE).text
    tree = ast.parse(text)
    assert set(_imports(tree)) <= {"__future__", "pathlib", "torch", "torch.nn.functional", "safetensors.torch"}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called <= {"super", "QueryTower", "TwoTower", "Path", "load_file", "save_file", "stored"}
    assert "os" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    subprocess.run([sys.executable, "-c", text], cwd=tmp_path, check=True, timeout=120)
    assert not list(tmp_path.iterdir())


def _imports(tree: ast.Module) -> list[str]:
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return names + [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]


@pytest.mark.parametrize("numbering", ["layer_{i}.dense", "dense_{i}"])
def test_blocks_have_one_class(numbering: str, tmp_path: Path) -> None:
    """Equal blocks are a loop over a class, and their weights come from the names that each has in the checkpoint."""
    rng = torch.Generator().manual_seed(0)
    nodes: list[Node] = []
    modules: dict[str, ModuleSpec] = {}
    store: dict[str, Tensor] = {}
    before = "x"
    for i in range(5):
        pair = []
        for part in ("", "_out"):
            name = numbering.format(i=i) + part
            modules[name] = ModuleSpec("Linear", {"in_features": 4, "out_features": 4, "bias": True})
            store |= {
                f"{name}.weight": torch.randn(4, 4, generator=rng),
                f"{name}.bias": torch.randn(4, generator=rng),
            }
            pair.append(Node(name, "module", (before if not pair else f"act_{i}",), {"module": name}))
            nodes.append(pair[-1])
            if len(pair) == 1:
                nodes.append(Node(f"act_{i}", "tanh", (name,)))
        nodes.append(Node(f"add_{i}", "add", (before, pair[1].name)))
        before = f"add_{i}"
    graph = Graph((TensorSpec("x", "float32", ("batch", 4)),), tuple(nodes), {"y": before}, modules)
    source = made(graph, store)
    assert "for _ in range(5)" in source.text and source.text.count("nn.Linear") == 2
    file = tmp_path / "blocks.py"
    file.write_text(source.text)
    module = imported(file)
    towers = module.TwoTower()
    given = {f"query.{name}": value for name, value in store.items()}
    towers.load_state_dict({name: given[module.stored(name)] for name in towers.state_dict()})
    x = torch.randn(3, 4, generator=rng)
    expected = x
    for i in range(5):
        first, second = (numbering.format(i=i) + part for part in ("", "_out"))
        inner = torch.tanh(expected @ store[f"{first}.weight"].T + store[f"{first}.bias"])
        expected = expected + inner @ store[f"{second}.weight"].T + store[f"{second}.bias"]
    torch.testing.assert_close(towers.query(x), expected)


OWN_LAYERS = {
    "EinsumDense": {"equation": "abc,bcd->abd", "shape": (5, 4, 6), "bias_shape": (5, 1)},
    "ShiftedLayerNorm": {"normalized_shape": (5, 4), "eps": 1e-3},
}
"""Layers that torch does not have, and their arguments."""


@pytest.mark.parametrize("kind", OWN_LAYERS)
def test_a_layer_that_torch_lacks_is_a_class_of_the_file(kind: str, tmp_path: Path) -> None:
    layer = MODULES[kind].function(**OWN_LAYERS[kind])
    generator = torch.Generator().manual_seed(0)
    store = {
        f"inner.{name}": torch.randn(value.shape, generator=generator) for name, value in layer.state_dict().items()
    }
    nodes = (Node("y", "module", ("x",), {"module": "inner"}),)
    graph = Graph(
        (TensorSpec("x", "float32", ("batch", 5, 4)),), nodes, {"y": "y"}, {"inner": ModuleSpec(kind, OWN_LAYERS[kind])}
    )
    source = made(graph, store)
    assert f"class {kind}(" in source.text and "torch_towers" not in {
        name.split(".")[0] for name in _imports(ast.parse(source.text))
    }
    file = tmp_path / "own.py"
    file.write_text(source.text)
    towers = imported(file).TwoTower()
    towers.load_state_dict({f"query.{name}": value for name, value in store.items()})
    layer.load_state_dict({name.partition(".")[2]: value for name, value in store.items()})
    x = torch.randn(3, 5, 4, generator=generator)
    assert torch.equal(towers.query(x), layer(x))


def test_a_block_hands_on_what_it_was_given_under_one_name() -> None:
    """`x = norm(attention(x, mask) + x)`: a value of the carried one's shape, once nothing reads that any more."""
    text = written(TwoTower(query=bert(12)), {"query": {}}, "bert").text
    layer = text[text.index("class TransformerLayer") : text.index("class QueryTower")]
    assert "    x = self.attention_norm(x + self.attention(x, attention_mask))" in layer
    assert "return self.output_norm(x + self.output(F.gelu(self.intermediate(x))))" in layer


def test_a_mean_under_a_mask_is_a_function_of_the_file() -> None:
    text = source_of(PACKAGES).text
    assert text.count("masked_mean(self.word_embedding(") == 4 and text.count(".unsqueeze(-1)).sum(1)") == 1


def test_rows_that_the_preprocessing_makes_are_the_batch() -> None:
    """Rows of ragged values have no known number, but the output's are the batch's."""
    spec = TensorSpec("x", "float32", (None, 4))
    graph = Graph((spec,), (Node("y", "tanh", ("x",)),), {"y": "y"})
    same = Graph((spec,), (), {"x": "x"})
    for rows, first in (("batch", "batch"), (None, "length")):
        outputs = (TensorSpec("y", "float32", (rows, 4)),)
        known, free = layout(Tower(TowerSpec(same, graph, None, (spec,), outputs), {}))
        assert known["y"].dims == known["x"].dims == (first, 4) and [size.name for size in free] == [first]


def test_a_bert_of_twelve_layers_is_under_150_lines(tmp_path: Path) -> None:
    tower = bert(12)
    source = written(TwoTower(query=tower), {"query": {}}, "bert")
    assert len(source.text.splitlines()) < 150
    assert "nn.ModuleList(TransformerLayer() for _ in range(12))" in source.text
    assert "torch_towers" not in {name.split(".")[0] for name in _imports(ast.parse(source.text))}
    file = tmp_path / "bert_source.py"
    file.write_text(source.text)
    module = imported(file)
    towers = module.TwoTower()
    given = {f"query.{name}": value for name, value in tower.encoder.state_dict().items()}
    towers.load_state_dict({name: given[module.stored(name)] for name in towers.state_dict()})
    ids = torch.randint(1, 50, (3, 7))
    mask = torch.arange(7) < torch.tensor([[7], [3], [5]])
    torch.testing.assert_close(towers.query(ids, mask), tower.encoder(ids=ids, mask=mask)["y"])
