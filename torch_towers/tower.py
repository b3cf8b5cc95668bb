"""Tower: one side of a two-tower model, from the inputs of its signature to its outputs.

How `tower.encode(["edit photos", "play chess"])` of the demo's query tower runs:

    _reader       the rows as columns: {"text": array of 2 byte strings}, 2 rows
    _encoded      in batches (`program/batches.py`), since each row's embedding depends on that row alone
    _route        what of the graphs runs for the output that is asked for (`program/route.py`)
    _computed     on the caller's thread if the batch is small (`program/cost.py`)
    _prepared     the graph `preprocess`, on the CPU: {"words": int64 [2, 40]}
    _encode       the graph `encoder`, on the device: {"output_0": float32 [2, 64]}; a tower that skips padding runs on
                  the positions of the longest row only (`program/padding.py`), and a large batch that keeps rows apart
                  in parts that fit the caches (`program/rows.py`)
    _outputs_of   the graph `postprocess`, if outputs are strings: here there is none

If a kernel fails, `_explained` runs rows alone to find the one to blame (`program/blame.py`).
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from torch_towers.checkpoint.checkpoint import Side
from torch_towers.errors import CheckpointError, InputError
from torch_towers.extras import need
from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph.graph import TensorSpec, is_batched
from torch_towers.graph.registry import Strings
from torch_towers.graph.spec import TowerSpec
from torch_towers.inputs.reader import Columns, InputReader
from torch_towers.kernels.fast_path import readable, untouched
from torch_towers.kernels.threads import forked, on_one_thread, without_waiting
from torch_towers.program.batches import run_batches
from torch_towers.program.binding import Env, Store
from torch_towers.program.blame import blamed
from torch_towers.program.cost import BATCH, SMALL, UNKNOWN, Cost, memory_of, work_of
from torch_towers.program.listing import listing
from torch_towers.program.padding import budget_of, run_cut
from torch_towers.program.precision import full_precision
from torch_towers.program.program import Program
from torch_towers.program.refusals import KERNEL_ERRORS, refusal
from torch_towers.program.route import Route

Array = np.ndarray[Any, np.dtype[Any]]
Outputs = dict[str, "Tensor | Strings"]

_FLOAT16_MAX = torch.finfo(torch.float16).max


class Tower(nn.Module):
    """One side: `tower(inputs) -> {output: value}`, every output of the signature by name.

    `tower.preprocess(inputs)` returns the tensors that `tower.encoder(**tensors)` takes. `tower.inputs` and
    `tower.outputs` are the signature; `tower.defaults` holds the values of optional inputs.

    The encoder is a submodule, so `parameters()`, `state_dict()` and `to()` work as on any module; a dtype replaces
    float32 in the encoder. Preprocessing always runs on the CPU in the signature's precision.

    `skip_padding`: where padding provably changes no output, the encoder skips it in `eval()`: it truncates rows to
    their real length and batches rows of similar length. The results are equal within rounding.
    """

    skip_padding: bool

    def __init__(
        self, spec: TowerSpec, store: Store, *, frozen: frozenset[str] = frozenset(), skip_padding: bool = True
    ) -> None:
        super().__init__()
        spec.check()
        self.skip_padding = skip_padding
        self.spec = spec
        self.inputs, self.outputs = spec.inputs, spec.outputs
        self.defaults = {name: store[key] for name, key in spec.defaults.items()}
        self.frozen = frozen
        store = {name: _trainable(value, name, frozen) for name, value in store.items()}
        self.encoder = Program(spec.encoder, store, frozen=frozen)
        self._host = _Host(
            Program(spec.preprocess, store, frozen=frozen),
            None if spec.postprocess is None else Program(spec.postprocess, store, frozen=frozen),
        )
        self._store = store
        self._reader = InputReader(spec.inputs, self.defaults)
        self._renamed = spec.renamed()
        self._batched = {item.name for item in spec.inputs if is_batched(item)}
        self._routes: dict[str | None, Route] = {None: Route(spec)}  # by the only output that they lead to
        self.eval()

    if TYPE_CHECKING:

        def __call__(self, inputs: Any) -> Outputs: ...

    # -- running ------------------------------------------------------------------------------------------------------

    def forward(self, inputs: Any) -> Outputs:
        """Every output by name, for all rows: tensors on the tower's device, strings as arrays of bytes.

        Tensors carry gradients after `train()`, and none after `eval()`, the state after loading. Errors: `InputError`
        names the feature and the row.
        """
        columns, rows = self._reader(inputs)
        return self._run(columns, rows)

    def preprocess(self, inputs: Any) -> Columns:
        """The encoder's inputs by name: CPU tensors (and sizes), and strings that only the outputs need."""
        columns, _ = self._reader(inputs)
        try:
            return without_waiting(self._prepared, columns)
        except KERNEL_ERRORS as error:
            raise InputError(f"the tower could not be run on these inputs: {self._refusal(error, columns)}") from error

    def trace(self, inputs: Any) -> dict[str, Env]:
        """The value of every node by name, for each stage of the tower: "preprocess", "encoder", "postprocess".

        Each stage runs node by node, layers too, for debugging. Errors: `InputError`, and those of torch.
        """
        columns, _ = self._reader(inputs)
        columns = self._as_named_inside(columns)
        traced = {"preprocess": self._preprocess.values(**columns)}
        given = self._preprocess.outputs_of(traced["preprocess"])
        traced["encoder"] = self.encoder.values(**self.on_device(given))
        if self._postprocess is not None:
            given |= self.encoder.outputs_of(traced["encoder"])
            wanted = {spec.name: _hosted(given[spec.name], spec.dtype) for spec in self._postprocess.graph.inputs}
            traced["postprocess"] = self._postprocess.values(**wanted)
        return traced

    @overload
    def encode(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: Literal[False] = False, normalize_embeddings: bool = False,
    ) -> Tensor: ...  # fmt: skip
    @overload
    def encode(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: Literal[True], normalize_embeddings: bool = False,
    ) -> Array: ...  # fmt: skip
    @overload
    def encode(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: bool, normalize_embeddings: bool = False,
    ) -> Tensor | Array: ...  # fmt: skip
    def encode(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        convert_to_numpy: bool = False,
        normalize_embeddings: bool = False,
    ) -> Tensor | Array:
        """The embeddings of `inputs`: `n rows -> [n, dim]`, a tensor on the tower's device, or a numpy array.

        A tower with one output returns it whatever its shape and dtype; strings are an array of bytes. Rows run in
        batches of `batch_size`: by default 1024, and on the CPU up to 16,384 of those that take little work and memory.
        A graph that pads to the longest text of a batch may give other numbers for other batches, as it does in
        TensorFlow. `normalize_embeddings` scales every row to unit length.
        """
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ValueError(f"batch_size must be a positive integer, not {batch_size!r}")
        columns, rows = self._reader(inputs)
        value = self._encoded(columns, rows, batch_size, convert_to_numpy, show_progress_bar)
        if not isinstance(value, Tensor):
            return value  # strings, an array of bytes
        if normalize_embeddings:
            value = without_waiting(functools.partial(nn.functional.normalize, dim=-1), value)
        if not convert_to_numpy:
            return value
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()

    @property
    def embedding(self) -> str:
        """The output that `encode` returns: the one named at port time, else the only output, else the only float
        output of rank 2."""
        named = self._named_embedding()
        if named is not None:
            return named.name
        listed = ", ".join(f"{s.name!r} ({s.dtype}, {s.shape})" for s in self.outputs)
        raise InputError(f"no output was chosen as the embedding when the tower was ported; its outputs are {listed}")

    def _named_embedding(self) -> TensorSpec | None:
        if self.spec.embedding is not None:
            return next(item for item in self.outputs if item.name == self.spec.embedding)
        found = [s for s in self.outputs if s.dtype in FLOATS and s.shape is not None and len(s.shape) == 2]
        return self.outputs[0] if len(self.outputs) == 1 else found[0] if len(found) == 1 else None

    def _run(self, columns: Columns, rows: int | None, only: str | None = None) -> Outputs:
        if rows == 0:
            empty = self._empty({spec.name for spec in self.outputs})
            if empty is not None:
                return empty
        try:
            with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
                return self._computed(columns, only, rows)
        except torch.OutOfMemoryError:
            raise
        except KERNEL_ERRORS as error:  # includes InputError of the graph's own checks
            raise self._explained(error, columns, rows) from error

    def _computed(self, columns: Columns, only: str | None = None, rows: int | None = None) -> Outputs:
        route = self._route(only)
        if forked() or (rows and self._is_small(columns, rows, route)):
            return on_one_thread(self._outputs_of, columns, only, route)
        return self._outputs_of(columns, only, route)

    def _route(self, only: str | None) -> Route:
        """The shortest way to an output; that of all outputs where the encoder is the user's, or would tell the difference."""
        outputs = self.spec.encoder.outputs
        if only not in outputs or len(outputs) == 1:
            return self._routes[None]
        if not untouched(self.encoder, Program) or not self.encoder.runs(self.spec.encoder):
            return self._routes[None]  # swapped, hooked, compiled or in training
        if only not in self._routes:
            self._routes[only] = Route(self.spec, only)
        return self._routes[only]

    def _is_small(self, columns: Columns, rows: int, route: Route) -> bool:
        """Whether one thread is faster than several; depends only on the graph and the number of rows."""
        if self.device.type != "cpu" or self._skips():
            return False
        return rows * self._cost_of_row(columns, rows, route).work <= SMALL

    def _rows_together(self, columns: Columns, rows: int, route: Route) -> int:
        """How many rows run as a batch, where the user does not say it: what a call costs beside its rows should not count."""
        if rows <= BATCH or self.device.type != "cpu" or self._skips() or not route.same_lengths:
            return BATCH
        return self._cost_of_row(columns, rows, route).batch

    def _cost_of_row(self, columns: Columns, rows: int, route: Route) -> Cost:
        """What a row takes, found by running the first; infinite if that is not to be told."""
        if route.cost is None:
            if self._whole(columns, rows):
                return UNKNOWN
            try:
                first = self._cut(columns, 0, 1) if self._splittable else _first_of(columns, rows)
                preprocess = route.preprocess(self._preprocess)
                with torch.no_grad():
                    values = preprocess.values(**self._as_named_inside(first))
                prepared = self.on_device(preprocess.outputs_of(values), route)
                route.cost = Cost(work_of(route.encoder(self.encoder), prepared), memory_of(preprocess.graph, values))
            except KERNEL_ERRORS:  # a bad row, or a graph that needs more than one
                return UNKNOWN
        return route.cost

    def _outputs_of(self, columns: Columns, only: str | None, route: Route) -> Outputs:
        prepared = self._prepared(columns, route)
        if self.device.type == "cuda":
            with full_precision():
                encoded = self._encode(prepared, only, route)
        else:
            encoded = self._encode(prepared, only, route)
        if only is not None and only in encoded:
            return {only: encoded[only]}
        if self._postprocess is None:
            return {spec.name: encoded[spec.name] for spec in self.outputs}
        wanted = {spec.name: spec.dtype for spec in self._postprocess.graph.inputs}
        both = {**prepared, **encoded}
        with torch.no_grad():
            after = self._postprocess(**{name: _hosted(both[name], dtype) for name, dtype in wanted.items()})
        both.update(after)
        return {spec.name: both[spec.name] for spec in self.outputs}

    def _encode(self, prepared: Columns, only: str | None, route: Route) -> Outputs:
        """The encoder's outputs; skips padding if the requested outputs do not depend on it."""
        encoder = route.encoder(self.encoder)
        if not (route.skips(only) and self._skips()):
            return route.parts(encoder, self.on_device(prepared, route))
        given = {name: prepared[name] for name in route.inputs}
        if route.place_work is None:
            route.place_work = self._work_of_place(given, route)
        work = route.place_work

        def run(inputs: Columns, places: float) -> Outputs:
            inputs = self.on_device(inputs, route)
            if self.device.type == "cpu" and places * work <= SMALL:
                found = on_one_thread(functools.partial(encoder, **inputs))
            else:
                found = encoder(**inputs)
            return found if only not in found else {cast(str, only): found[only]}

        return run_cut(run, given, route.padding, budget=budget_of(work), splittable=self._splittable)

    def _skips(self) -> bool:
        """Whether padding is skipped now: not under gradients, a compiler or a torch mode."""
        return bool(self.skip_padding and self.spec.padding) and not torch.is_grad_enabled() and readable()

    def _work_of_place(self, given: Columns, route: Route) -> float:
        """FLOPs of one position of a row, estimated on a few positions of the first row; infinite if unknown."""
        few = {name: value[:1] if isinstance(value, Tensor) and value.ndim else value for name, value in given.items()}
        count = min(8, *(few[each.input].shape[1] for each in route.padding))
        for each in route.padding:
            few |= {name: few[name][:, :count] for name in each.along}
        try:
            return work_of(route.encoder(self.encoder), self.on_device(few, route)) / (count * len(route.padding))
        except (*KERNEL_ERRORS, AttributeError):  # a graph that needs more than one row, or a user's own encoder
            return math.inf

    def _prepared(self, columns: Columns, route: Route | None = None) -> Columns:
        preprocess = self._preprocess if route is None else route.preprocess(self._preprocess)
        columns = self._as_named_inside(columns)
        if not torch.is_grad_enabled():
            return preprocess.forward(**columns)
        with torch.no_grad():
            return preprocess.forward(**columns)

    def _as_named_inside(self, columns: Columns) -> Columns:
        """The columns under the names that the preprocessing has for them."""
        return {self._renamed[name]: value for name, value in columns.items()} if self._renamed else columns

    def on_device(self, prepared: Columns, route: Route | None = None) -> dict[str, Any]:
        """Moves the result of `preprocess` to the encoder's device, floats in its dtype."""
        names = (route or self._routes[None]).inputs
        if self.dtype == torch.float32 and self.device.type == "cpu":
            return prepared if prepared.keys() == names.keys() else {name: prepared[name] for name in names}
        return {name: self._moved(prepared[name], floats) for name, floats in names.items()}

    def _moved(self, value: Any, floats: bool) -> Any:
        if not isinstance(value, Tensor):
            return value  # a size
        floats = floats and value.is_floating_point()  # for a value of unknown dtype, "float32" is a guess
        if floats and self.dtype == torch.float16 and bool(((value.abs() > _FLOAT16_MAX) & value.isfinite()).any()):
            raise InputError("a number does not fit float16 (at most 65504): run the tower in bfloat16 or float32")
        device = self.device
        if device.type == "cuda" and value.is_cpu:
            value = value.pin_memory()  # makes the copy asynchronous
        return value.to(device, self.dtype if floats else None, non_blocking=True)

    def _encoded(
        self, columns: Columns, rows: int | None, batch_size: int | None, to_host: bool, progress: bool
    ) -> Tensor | Array:
        """The embeddings, in batches if rows are independent; on the CPU if `to_host`.

        Results of inference mode are copied outside of it, so that they can take part in training.
        """
        name = self.embedding
        if rows == 0:
            found = self._empty({name}) or self._run(columns, rows)
            value = cast(Tensor, found[name])
            value = value[:0] if value.ndim else value
        elif rows is None or not self._splittable or self._whole(columns, rows):
            value = _own(self._embeddings(columns, rows, name))
        else:
            batch_size = batch_size or self._rows_together(columns, rows, self._route(name))

            def part(start: int, end: int) -> Tensor:
                cut = columns if end - start == rows else self._cut(columns, start, end)
                found = self._embeddings(cut, end - start, name, start)
                if found.shape[:1] != (end - start,):
                    raise _misfit(name, f"its shape is {list(found.shape)} for {end - start} rows")
                return found

            if self._named_embedding().dtype == "string":  # type: ignore[union-attr]
                starts = range(0, rows, batch_size)
                parts = [cast(Array, part(start, min(rows, start + batch_size))) for start in starts]
                return np.concatenate(parts)
            bar = _progress_bar(rows) if progress else None
            return run_batches(part, rows, batch_size, device=self.device, to_host=to_host, bar=bar)
        return value.cpu() if to_host and isinstance(value, Tensor) else value

    def _whole(self, columns: Columns, rows: int) -> list[str]:
        """Names of defaults: they hold for all rows at once and cannot be split into batches."""
        return [name for name in self.defaults if name in self._batched and columns[name].shape[:1] != (rows,)]

    def _cut(self, columns: Columns, start: int, end: int) -> Columns:
        """A slice of the batch. Inputs that are not per-row stay whole."""
        return {name: value[start:end] if name in self._batched else value for name, value in columns.items()}

    @functools.cached_property
    def _splittable(self) -> bool:
        """Whether the batch can be split: the embedding and all that it depends on are per-row."""
        named = self._named_embedding()
        if named is None:
            return self._reader.splittable
        if not is_batched(named) and named.shape is not None:
            return False
        return self.spec.needs(named.name) <= {self._renamed.get(name, name) for name in self._batched}

    def _embeddings(self, columns: Columns, rows: int | None, name: str, start: int = 0) -> Tensor:
        try:
            with torch.inference_mode():
                found: Any = self._computed(columns, name, rows)[name]
        except torch.OutOfMemoryError:
            raise
        except KERNEL_ERRORS as error:  # includes InputError of the graph's own checks
            raise self._explained(error, columns, rows, start) from error
        if not isinstance(found, (Tensor, np.ndarray)):
            raise _misfit(name, f"it is {type(found).__name__}, no tensor")
        return cast(Tensor, found)

    def _empty(self, names: set[str]) -> Outputs | None:
        """The outputs for zero rows, if the signature gives their shapes: many graphs fail without rows."""
        found: Outputs = {}
        for spec in self.outputs:
            if spec.name not in names:
                continue
            if not is_batched(spec) or not all(isinstance(size, int) for size in spec.shape[1:]):  # type: ignore[index]
                return None
            shape = (0, *cast("tuple[int, ...]", spec.shape[1:]))  # type: ignore[index]
            if spec.dtype == "string":
                found[spec.name] = np.empty(shape, dtype=object)
                continue
            dtype = self.dtype if spec.dtype == "float32" else TORCH_DTYPES[spec.dtype]
            found[spec.name] = torch.empty(shape, dtype=dtype, device=self.device)
        return found

    def _explained(self, error: Exception, columns: Columns, rows: int | None, start: int = 0) -> InputError:
        """Finds the cause of a kernel error in the inputs: the first row that fails alone, and the responsible
        feature."""
        said = self._refusal(error, columns)
        if rows is None or not self._splittable or self.device.type != "cpu":
            return InputError(f"the tower could not be run on these inputs: {said}")
        cut = functools.partial(self._cut, columns)
        found = blamed(columns, rows, self._fails, cut, whole=bool(self._whole(columns, rows)))
        if found is None:
            return InputError(f"the tower could not be run on these inputs: {said}")
        row = start + found.row
        if found.feature is None:
            return InputError(f"row {row}: the tower refuses its values: {said}")
        shown = repr(found.value)[:80]
        return InputError(f"feature {found.feature!r}, row {row}: the tower refuses {shown}: {said}")

    def _refusal(self, error: Exception, columns: Columns) -> str:
        """`error` in TensorFlow's words or ours: the graph's own message, or the inputs of the node that failed."""
        if isinstance(error, InputError) or self.device.type != "cpu":
            return str(error)  # on a device the error may be the device's
        columns = self._as_named_inside(columns)
        values = dict(columns)
        with torch.no_grad():
            for program in self.parts.values():
                given = {spec.name: values[spec.name] for spec in program.graph.inputs}
                try:
                    values |= program(**given)
                except KERNEL_ERRORS as found:
                    return refusal(program, given, found)
        return "its results have different lengths"

    def _fails(self, columns: Columns) -> bool:
        try:
            with torch.no_grad():
                self._computed(columns)
        except Exception:
            return True
        return False

    # -- the module ---------------------------------------------------------------------------------------------------

    @property
    def _preprocess(self) -> Program:
        return self._host.before

    @property
    def _postprocess(self) -> Program | None:
        return self._host.after

    @property
    def parts(self) -> dict[str, Program]:
        """The stages in order: "preprocess", "encoder", and "postprocess" if there is one."""
        after = {} if self._postprocess is None else {"postprocess": self._postprocess}
        return {"preprocess": self._preprocess, "encoder": self.encoder, **after}

    @property
    def device(self) -> torch.device:
        """The encoder's device. Preprocessing runs on the CPU."""
        return self.encoder.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that replaces float32 in the encoder."""
        return self.encoder.dtype

    def to_transformers(self, folder: str | Path, inputs: Any = None) -> Any:
        """Exports the encoder as a class of transformers, for `AutoModel.from_pretrained` and `SentenceTransformer`.

        Returns a summary of the export and its comparison (`torch_towers.source.to_transformers.Folder`), which also covers
        `inputs` as `encode` takes them. Needs the extra `[transformers]`. Errors: `TorchTowersError` if no class matches or
        the numbers differ; nothing is written then.
        """
        exits = need(
            "torch_towers.source.to_transformers", "transformers"
        )  # it stands above the tower, which does not import it
        return exits.to_transformers(self, folder, inputs)

    def side(self) -> Side:
        """The tower's current state as data to save. `CheckpointError` if a layer was replaced by another type."""
        store: dict[str, Tensor | Strings] = {}
        for program in (self._preprocess, self._postprocess, self.encoder):
            if program is None:
                continue
            try:
                tensors = program.tensors()
            except LookupError as error:
                raise CheckpointError(
                    f"{error.args[0]}: put the original back (merge what was added into its weights), then save"
                ) from error
            for name, value in tensors.items():
                if hasattr(value, "full_tensor"):
                    raise CheckpointError(
                        f"{name!r} is sharded (FSDP): load the `full_tensor()` of each weight into a fresh tower's encoder "
                        "with `load_state_dict`, then save that one"
                    )
                if name in store and cast(Tensor, store[name]).dtype != value.dtype:
                    raise CheckpointError(
                        f"{name!r} is used in two precisions, before and in the encoder: save the tower as float32"
                    )
                store[name] = value
        spec = TowerSpec(
            self.spec.preprocess, self.encoder.graph, self.spec.postprocess,
            self.inputs, self.outputs, self.spec.embedding, self.spec.defaults, self.spec.padding,
        )  # fmt: skip
        return Side(spec, {**self._store, **store}, self.frozen)

    def __repr__(self) -> str:
        return listing(self)


class _Host(NamedTuple):
    """The stages on the CPU around the encoder, wrapped so that torch does not register and move them as submodules."""

    before: Program
    after: Program | None


def _trainable(value: Tensor | Strings, name: str, frozen: frozenset[str]) -> Tensor | Strings:
    """Makes float weights parameters, once, so that graphs which share a weight train the same parameter."""
    if (
        isinstance(value, nn.Parameter)
        or not isinstance(value, Tensor)
        or name in frozen
        or not value.is_floating_point()
    ):
        return value
    return nn.Parameter(value)


def _first_of(columns: Columns, rows: int) -> Columns:
    """The first row of all that seems to have as many, where the signature does not say so: good enough to tell a cost."""
    return {name: value[:1] if value.shape[:1] == (rows,) else value for name, value in columns.items()}


def _hosted(value: Any, dtype: str) -> Any:
    """An encoder's output for the host stage: on the CPU, in the precision of the host's graph."""
    if not isinstance(value, Tensor):
        return value
    wanted = TORCH_DTYPES.get(dtype)
    return value.detach().to("cpu", wanted if wanted is not None and value.is_floating_point() else None)


def _own(value: Any) -> Any:
    """A copy: tensors made in inference mode cannot take part in training."""
    return value.clone() if isinstance(value, Tensor) else value.copy()


def _misfit(name: str, why: str) -> CheckpointError:
    """The error for an output shape that a correct port cannot produce."""
    return CheckpointError(
        f"the output {name!r} does not match the rows given to the tower: {why}: port the model again"
    )


def _progress_bar(rows: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=rows, unit=" rows", desc="encode")


__all__ = ["Outputs", "Tower", "TowerSpec"]
