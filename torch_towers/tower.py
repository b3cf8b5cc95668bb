"""Tower: one side of a two-tower model, from the inputs of its signature to its outputs."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from torch_towers.checkpoint.checkpoint import Side
from torch_towers.errors import CheckpointError, InputError
from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph.graph import TensorSpec, is_batched
from torch_towers.graph.registry import Strings
from torch_towers.graph.spec import TowerSpec
from torch_towers.inputs.reader import Columns, InputReader
from torch_towers.kernels.fast_path import readable
from torch_towers.kernels.threads import forked, on_one_thread, without_waiting
from torch_towers.program.batches import run_batches
from torch_towers.program.binding import Env, Store
from torch_towers.program.cost import SMALL, work_of
from torch_towers.program.listing import listing
from torch_towers.program.padding import budget_of, run_cut
from torch_towers.program.precision import full_precision
from torch_towers.program.program import Program
from torch_towers.program.refusals import KERNEL_ERRORS, refusal

Array = np.ndarray[Any, np.dtype[Any]]
Outputs = dict[str, "Tensor | Strings"]

_FLOAT16_MAX = torch.finfo(torch.float16).max


class Tower(nn.Module):
    """One side: `tower(inputs) -> {output: value}`, every output of the signature by its name.

    `tower.preprocess(inputs)` gives the tensors that `tower.encoder(**tensors)` takes. `tower.inputs` and `tower.outputs` are the
    signature; `tower.defaults` holds the values of inputs that may be left out.

    The encoder is its submodule, so `parameters()`, `state_dict()` and `to()` are those of any module; a dtype stands for float32
    in the encoder. The preprocessing runs on the CPU in the signature's precision always.

    `skip_padding`: where rows end with padding that changes no output, as was proven at port time, the encoder does not compute it
    in `eval()`: rows are cut at their ends, and those of like lengths run together. The numbers are the same within rounding.
    """

    skip_padding: bool

    def __init__(
        self, spec: TowerSpec, store: Store, *, frozen: frozenset[str] = frozenset(), skip_padding: bool = True
    ) -> None:
        super().__init__()
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
        self._row_work: float | None = None  # counted at the first run
        self._place_work: float | None = None  # of one place of a row, where padding is skipped
        self._check()
        self.eval()

    if TYPE_CHECKING:

        def __call__(self, inputs: Any) -> Outputs: ...

    # -- running ------------------------------------------------------------------------------------------------------

    def forward(self, inputs: Any) -> Outputs:
        """Every output by its name, for all rows at once: tensors on the tower's device, strings as arrays of bytes.

        They carry gradients after `train()`, and none after `eval()`, as a tower is loaded. Errors: `InputError` names the feature
        and the row.
        """
        columns, rows = self._reader(inputs)
        return self._run(columns, rows)

    def preprocess(self, inputs: Any) -> Columns:
        """What the encoder takes, by its names: CPU tensors (and sizes). Strings that only the outputs need come along."""
        columns, _ = self._reader(inputs)
        try:
            return without_waiting(self._prepared, columns)
        except KERNEL_ERRORS as error:
            raise InputError(f"the tower could not be run on these inputs: {self._refusal(error, columns)}") from error

    def trace(self, inputs: Any) -> dict[str, Env]:
        """The value of every node by its name, for each part that the tower has: "preprocess", "encoder", "postprocess".

        Each part runs node by node, layers too: for looking at what happens inside. Errors: `InputError`, and those of torch.
        """
        columns, _ = self._reader(inputs)
        columns = {self._renamed.get(name, name): value for name, value in columns.items()}
        traced = {"preprocess": self._preprocess.values(**columns)}
        given = self._preprocess.outputs_of(traced["preprocess"])
        traced["encoder"] = self.encoder.values(**self.on_device({name: given[name] for name in self._encoder_inputs}))
        if self._postprocess is not None:
            given |= self.encoder.outputs_of(traced["encoder"])
            wanted = {spec.name: _hosted(given[spec.name], spec.dtype) for spec in self._postprocess.graph.inputs}
            traced["postprocess"] = self._postprocess.values(**wanted)
        return traced

    @overload
    def encode(
        self, inputs: Any, *, batch_size: int = 1024, show_progress_bar: bool = False,
        convert_to_numpy: Literal[False] = False, normalize_embeddings: bool = False,
    ) -> Tensor: ...  # fmt: skip
    @overload
    def encode(
        self, inputs: Any, *, batch_size: int = 1024, show_progress_bar: bool = False,
        convert_to_numpy: Literal[True], normalize_embeddings: bool = False,
    ) -> Array: ...  # fmt: skip
    @overload
    def encode(
        self, inputs: Any, *, batch_size: int = 1024, show_progress_bar: bool = False,
        convert_to_numpy: bool, normalize_embeddings: bool = False,
    ) -> Tensor | Array: ...  # fmt: skip
    def encode(
        self,
        inputs: Any,
        *,
        batch_size: int = 1024,
        show_progress_bar: bool = False,
        convert_to_numpy: bool = False,
        normalize_embeddings: bool = False,
    ) -> Tensor | Array:
        """The embeddings of `inputs`: `n rows -> [n, dim]`, a tensor on the tower's device, or a numpy array.

        Of a tower with one output it is that, whatever its shape and dtype: strings are an array of bytes.
        Rows are taken `batch_size` at a time. A graph that pads to the longest text of a batch may give other numbers for other
        batches, as it does in TensorFlow. `normalize_embeddings` makes every row of length 1.
        """
        if type(batch_size) is not int or batch_size < 1:
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
        """The output that `encode` gives: the one named at port time, else the only one, else the only float output of rank 2."""
        named = self._named_embedding()
        if named is not None:
            return named.name
        listed = ", ".join(f"{s.name!r} ({s.dtype}, {s.shape})" for s in self.outputs)
        raise InputError(
            f"which output is the embedding was not said when the tower was ported; its outputs are {listed}"
        )

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
        except KERNEL_ERRORS as error:  # InputError of the graph's own checks is one of them
            raise self._explained(error, columns, rows) from error

    def _computed(self, columns: Columns, only: str | None = None, rows: int | None = None) -> Outputs:
        if forked() or (rows and self._is_small(columns, rows)):
            return on_one_thread(self._outputs_of, columns, only)
        return self._outputs_of(columns, only)

    def _is_small(self, columns: Columns, rows: int) -> bool:
        """Whether one thread is faster than several: decided by the graph and the number of rows alone."""
        if self.device.type != "cpu" or self._skips():
            return False
        if self._row_work is None:
            if not self._splittable or self._whole(columns, rows):
                return False
            try:
                prepared = self._prepared(self._cut(columns, 0, 1))
                self._row_work = work_of(self.encoder, self.on_device(prepared))
            except KERNEL_ERRORS:  # a bad row, or a graph that wants more than one
                return False
        return rows * self._row_work <= SMALL

    def _outputs_of(self, columns: Columns, only: str | None) -> Outputs:
        prepared = self._prepared(columns)
        if self.device.type == "cuda":
            with full_precision():
                encoded = self._encode(prepared, only)
        else:
            encoded = self._encode(prepared, only)
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

    def _encode(self, prepared: Columns, only: str | None) -> Outputs:
        """The encoder's outputs; without computing padding, where the outputs that are wanted do not depend on it."""
        encoder = self.spec.encoder
        wanted = {only} if only is not None and only in encoder.outputs else set(encoder.outputs)
        if not self._skips() or any(wanted - set(each.outputs) for each in self.spec.padding):
            return self.encoder(**self.on_device(prepared))
        given = {name: prepared[name] for name in self._encoder_inputs}
        if self._place_work is None:
            self._place_work = self._work_of_place(given)

        def run(inputs: Columns, places: float) -> Outputs:
            inputs = self.on_device(inputs)
            if self.device.type == "cpu" and places * cast(float, self._place_work) <= SMALL:
                found = on_one_thread(functools.partial(self.encoder, **inputs))
            else:
                found = self.encoder(**inputs)
            return {name: found[name] for name in wanted}

        return run_cut(run, given, self.spec.padding, budget=budget_of(self._place_work), splittable=self._splittable)

    def _skips(self) -> bool:
        """Whether padding is left out now: not where gradients are followed, nor where a compiler or a mode looks on."""
        return bool(self.skip_padding and self.spec.padding) and not torch.is_grad_enabled() and readable()

    def _work_of_place(self, given: Columns) -> float:
        """Multiplications for one place of a row, counted on a few of the first row; infinite where they are not to be told."""
        few = {name: value[:1] if isinstance(value, Tensor) and value.ndim else value for name, value in given.items()}
        count = min(8, *(few[each.input].shape[1] for each in self.spec.padding))
        for each in self.spec.padding:
            few |= {name: few[name][:, :count] for name in each.along}
        try:
            return work_of(self.encoder, self.on_device(few)) / (count * len(self.spec.padding))
        except (*KERNEL_ERRORS, AttributeError):  # a graph that wants more than one row, or an encoder of the user's
            return math.inf

    def _prepared(self, columns: Columns) -> Columns:
        if self._renamed:
            columns = {self._renamed[name]: value for name, value in columns.items()}
        if not torch.is_grad_enabled():
            return self._preprocess.forward(**columns)
        with torch.no_grad():
            return self._preprocess.forward(**columns)

    def on_device(self, prepared: Columns) -> dict[str, Any]:
        """What `preprocess` gives, as the encoder takes it: on its device, floats in its dtype."""
        names = self._encoder_inputs
        if self.dtype == torch.float32 and self.device.type == "cpu":
            return prepared if prepared.keys() == names.keys() else {name: prepared[name] for name in names}
        return {name: self._moved(prepared[name], floats) for name, floats in names.items()}

    def _moved(self, value: Any, floats: bool) -> Any:
        if not isinstance(value, Tensor):
            return value  # a size
        floats = floats and value.is_floating_point()  # of a value that little is known of, "float32" is a guess
        if floats and self.dtype == torch.float16 and bool(((value.abs() > _FLOAT16_MAX) & value.isfinite()).any()):
            raise InputError("a number does not fit float16 (at most 65504): run the tower in bfloat16 or float32")
        device = self.device
        if device.type == "cuda" and value.is_cpu:
            value = value.pin_memory()  # so that the copy does not wait for the device
        return value.to(device, self.dtype if floats else None, non_blocking=True)

    def _encoded(
        self, columns: Columns, rows: int | None, batch_size: int, to_host: bool, progress: bool
    ) -> Tensor | Array:
        """The embeddings, in batches where the rows can be told apart; on the CPU where `to_host`.

        What was computed in inference mode is copied outside of it, so that it can take part in training.
        """
        name = self.embedding
        if rows == 0:
            found = self._empty({name}) or self._run(columns, rows)
            value = cast(Tensor, found[name])
            value = value[:0] if value.ndim else value
        elif rows is None or not self._splittable or self._whole(columns, rows):
            value = _own(self._embeddings(columns, rows, name))
        else:

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
        """Defaults stand for all rows at once: they cannot be cut into batches."""
        return [name for name in self.defaults if name in self._batched and columns[name].shape[:1] != (rows,)]

    def _cut(self, columns: Columns, start: int, end: int) -> Columns:
        """Some rows of the batch. Inputs with rows of their own come along whole."""
        return {name: value[start:end] if name in self._batched else value for name, value in columns.items()}

    @functools.cached_property
    def _splittable(self) -> bool:
        """Whether rows of the batch can be taken alone: all that the embedding needs is columns of it, and so is the embedding."""
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
        except KERNEL_ERRORS as error:  # InputError of the graph's own checks is one of them
            raise self._explained(error, columns, rows, start) from error
        if not isinstance(found, (Tensor, np.ndarray)):
            raise _misfit(name, f"it is {type(found).__name__}, no tensor")
        return cast(Tensor, found)

    def _empty(self, names: set[str]) -> Outputs | None:
        """The outputs for no rows, where the signature tells their shapes: many graphs fail without rows."""
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
        """What in the inputs made a kernel fail: the first row that fails alone, and the feature whose value is to blame."""
        said = self._refusal(error, columns)
        if rows is None or not self._splittable or self.device.type != "cpu":
            return InputError(f"the tower could not be run on these inputs: {said}")
        low, high = 0, rows
        while high - low > 1 and not self._whole(columns, rows):
            middle = (low + high) // 2
            low, high = (low, middle) if self._fails(self._cut(columns, low, middle)) else (middle, high)
        row = self._cut(columns, low, high)
        if not self._fails(row):
            return InputError(f"the tower could not be run on these inputs: {said}")
        for name, spec in zip(columns, self.inputs, strict=True):
            if not self._fails({**row, name: _neutral(columns[name], spec)}):
                value: list[Any] = cast(Any, row[name]).reshape(-1).tolist()
                shown = repr(value[0] if len(value) == 1 else value)
                return InputError(f"feature {name!r}, row {start + low}: the tower does not take {shown[:80]}: {said}")
        return InputError(f"row {start + low}: the tower does not take its values: {said}")

    def _refusal(self, error: Exception, columns: Columns) -> str:
        """`error` in TensorFlow's words or ours: the graph's own sentence, or what the node that failed was given."""
        if isinstance(error, InputError) or self.device.type != "cpu":
            return str(error)  # on a device the fault may be the device's
        if self._renamed:
            columns = {self._renamed[name]: value for name, value in columns.items()}
        values = dict(columns)
        with torch.no_grad():
            for program in self.parts.values():
                given = {spec.name: values[spec.name] for spec in program.graph.inputs}
                try:
                    values |= program(**given)
                except KERNEL_ERRORS as found:
                    return refusal(program, given, found)
        return "its results do not fit together"

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
        """The programs that a row passes through, in order: "preprocess", "encoder", and "postprocess" where there is one."""
        after = {} if self._postprocess is None else {"postprocess": self._postprocess}
        return {"preprocess": self._preprocess, "encoder": self.encoder, **after}

    @property
    def device(self) -> torch.device:
        """Where the encoder runs. The preprocessing runs on the CPU."""
        return self.encoder.device

    @property
    def dtype(self) -> torch.dtype:
        """What stands for float32 in the encoder."""
        return self.encoder.dtype

    def side(self) -> Side:
        """The tower as it is now, as data to be saved. `CheckpointError` where a layer was replaced by another kind."""
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
                        f"{name!r} has two precisions, before and in the encoder: save the tower as float32"
                    )
                store[name] = value
        spec = TowerSpec(
            self.spec.preprocess, self.encoder.graph, self.spec.postprocess,
            self.inputs, self.outputs, self.spec.embedding, self.spec.defaults, self.spec.padding,
        )  # fmt: skip
        return Side(spec, {**self._store, **store}, self.frozen)

    def __repr__(self) -> str:
        return listing(self)

    def _check(self) -> None:
        """The three graphs fit together, and the outputs are there."""
        spec = self.spec
        self._encoder_inputs = {item.name: item.dtype == "float32" for item in spec.encoder.inputs}
        given = set(spec.preprocess.outputs)
        if missing := sorted(self._encoder_inputs.keys() - given):
            raise CheckpointError(f"the encoder takes {missing[0]!r}, which the preprocessing does not give")
        given |= set(spec.encoder.outputs)
        if spec.postprocess is not None:
            if missing := sorted({item.name for item in spec.postprocess.inputs} - given):
                raise CheckpointError(f"the postprocessing takes {missing[0]!r}, which nothing gives")
            given |= set(spec.postprocess.outputs)
        else:
            given = set(spec.encoder.outputs)
        if missing := sorted({item.name for item in self.outputs} - given):
            raise CheckpointError(f"the output {missing[0]!r} of the signature comes out of no graph")
        if spec.embedding is not None and spec.embedding not in {item.name for item in self.outputs}:
            raise CheckpointError(f"the embedding {spec.embedding!r} is not an output of the signature")
        for each in spec.padding:
            ranks = {item.name: len(item.shape or ()) for item in spec.encoder.inputs}
            wrong = [name for name in (each.input, *each.along) if ranks.get(name, 0) < 2]
            wrong += [name for name in each.outputs if name not in spec.encoder.outputs]
            if wrong or each.input not in each.along:
                raise CheckpointError(
                    f"the padding of {each.input!r} names {(wrong or [each.input])[0]!r}, which has no rows to cut"
                )
        if unknown := sorted(spec.defaults.keys() - {item.name for item in self.inputs}):
            raise CheckpointError(f"{unknown[0]!r} has a default, but is not an input of the signature")


class _Host(NamedTuple):
    """What runs on the CPU around the encoder: held aside, so that it is no submodule and stays there."""

    before: Program
    after: Program | None


def _trainable(value: Tensor | Strings, name: str, frozen: frozenset[str]) -> Tensor | Strings:
    """Float weights as parameters, made here once, so that graphs which share one train the same."""
    if (
        isinstance(value, nn.Parameter)
        or not isinstance(value, Tensor)
        or name in frozen
        or not value.is_floating_point()
    ):
        return value
    return nn.Parameter(value)


def _hosted(value: Any, dtype: str) -> Any:
    """An encoder's output for the host: on the CPU, in the precision that the host's graph was made for."""
    if not isinstance(value, Tensor):
        return value
    wanted = TORCH_DTYPES.get(dtype)
    return value.detach().to("cpu", wanted if wanted is not None and value.is_floating_point() else None)


def _own(value: Any) -> Any:
    """A copy: what was computed in inference mode takes no part in training."""
    return value.clone() if isinstance(value, Tensor) else value.copy()


def _misfit(name: str, why: str) -> CheckpointError:
    """An output that no port would make."""
    return CheckpointError(
        f"the output {name!r} is not of the rows that the tower was given: {why}: port the model again"
    )


def _neutral(column: Tensor | Strings, spec: TensorSpec) -> Any:
    """A harmless value for one row: zero, or the empty string."""
    shape = (1, *column.shape[1:])
    if isinstance(column, Tensor):
        return torch.zeros(shape, dtype=column.dtype)
    return np.full(shape, b"", object)


def _progress_bar(rows: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=rows, unit=" rows", desc="encode")


__all__ = ["Outputs", "Tower", "TowerSpec"]
