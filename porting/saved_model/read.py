"""`read`: a directory to a SavedModel."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from porting.errors import CorruptModelError, PortingError, naming
from porting.saved_model import protos
from porting.saved_model.bundle import Bundle, Progress
from porting.saved_model.files import read_regular_file
from porting.saved_model.model import SavedModel
from torch_towers.checkpoint.recognize import recognized

_MAX_PROTO = (1 << 31) - 1  # protobuf's own limit


def read(
    path: str | os.PathLike[str],
    *,
    tags: Sequence[str] | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> SavedModel:
    """Reads the SavedModel in the directory `path`; nothing in it is executed.

    `tags` selects the meta graph: by default the one tagged "serve", else the only one. `verify` checks the checksum of
    every tensor, calling `progress` with (bytes done, total bytes). Raises CorruptModelError for damaged or
    contradictory files, PortingError for unsupported contents.
    """
    directory = Path(path)
    with naming(directory, "read"):
        return _read(directory, tags, verify, progress)


def _read(directory: Path, tags: Sequence[str] | None, verify: bool, progress: Progress | None) -> SavedModel:
    message = _read_proto(directory)
    tag_sets = [tuple(sorted(meta_graph.meta_info_def.tags)) for meta_graph in message.meta_graphs]
    meta_graph = message.meta_graphs[_choose(tag_sets, tags, directory)]
    prefix = directory / "variables" / "variables"
    bundle = Bundle(prefix) if prefix.with_name("variables.index").exists() else None
    if bundle is not None and verify:
        bundle.verify(progress)
    return SavedModel(directory, meta_graph, tag_sets, bundle)


def _read_proto(directory: Path) -> Any:
    if not directory.is_dir():
        raise _not_a_directory(directory)
    binary, text = directory / "saved_model.pb", directory / "saved_model.pbtxt"
    if os.path.lexists(binary):
        data = read_regular_file(binary, _MAX_PROTO)
        message = protos.parse("SavedModel", data, str(binary))
        used = binary
    elif os.path.lexists(text):
        try:
            decoded = read_regular_file(text, _MAX_PROTO).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorruptModelError(f"{text}: not UTF-8 text ({error})") from error
        message = protos.parse_text("SavedModel", decoded, str(text))
        used = text
    else:
        raise _no_saved_model(directory)
    if not message.meta_graphs:
        raise CorruptModelError(
            f"{used}: no meta graph in its {used.stat().st_size} bytes, expected at least one; the file is empty or not a SavedModel"
        )
    return message


def _not_a_directory(path: Path) -> PortingError:
    if not path.exists():
        return PortingError(f"{path}: there is no such directory")
    if path.is_file():
        if path.name in ("saved_model.pb", "saved_model.pbtxt"):
            return PortingError(f"{path}: name the directory, not the file in it: {path.parent}")
        if known := recognized(path):
            return PortingError(f"{path}{known}")
    return PortingError(f"{path}: not a directory; a SavedModel is a directory with a saved_model.pb in it")


def _no_saved_model(directory: Path) -> PortingError:
    found = sorted(entry.name for entry in directory.iterdir())
    if "saved_model.cpb" in found:
        return PortingError(
            f"{directory}: saved_model.cpb is the chunked form for models over 2 GB, which is not supported; save the weights as variables, not constants"
        )
    if "tfhub_module.pb" in found:
        return PortingError(f"{directory}: a TF1 Hub module without a saved_model.pb; copy the whole module")
    inside = [name for name in found if (directory / name / "saved_model.pb").is_file()]
    if not inside and (known := recognized(directory)):
        return PortingError(f"{directory}{known}")
    hint = f"; did you mean {', '.join(str(directory / name) for name in inside[:5])}?" if inside else ""
    listed = ", ".join(found[:10]) + (", ..." if len(found) > 10 else "")
    return PortingError(f"{directory}: no saved_model.pb or saved_model.pbtxt, found {listed or 'nothing'}{hint}")


def _choose(tag_sets: Sequence[tuple[str, ...]], tags: Sequence[str] | None, directory: Path) -> int:
    listed = "; ".join(", ".join(tag_set) or "(no tags)" for tag_set in tag_sets)
    if tags is not None:
        wanted = tuple(sorted([tags] if isinstance(tags, str) else tags))
        matching = [i for i, tag_set in enumerate(tag_sets) if tag_set == wanted]
        if not matching:
            raise PortingError(
                f"{directory}: no meta graph has the tags {', '.join(wanted) or '(no tags)'}, there are: {listed}"
            )
        return matching[0]
    serving = [i for i, tag_set in enumerate(tag_sets) if tag_set == ("serve",)] or [
        i for i, tag_set in enumerate(tag_sets) if "serve" in tag_set
    ]
    if len(serving) == 1:
        return serving[0]
    if len(tag_sets) == 1:
        return 0
    raise PortingError(f"{directory}: {len(tag_sets)} meta graphs, name the tags of one: {listed}")
