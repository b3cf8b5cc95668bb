"""TextVectorization: texts to rows of token ids, in one pass over the bytes of each text."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Spec, Strings, module
from torch_towers.kernels import native
from torch_towers.layers.lookups import Vocabulary
from torch_towers.layers.text_pipeline import Change, pipeline_of
from torch_towers.ops.regex import regex_replace
from torch_towers.ops.segments import ragged_bincount
from torch_towers.ops.strings import lower, ngrams, split, strings


def _rows_spec(
    x: Spec, *, output_mode: str, length: int = 0, dtype: str = "int64", size: int = 0, **args: Any
) -> list[Spec]:
    rows = None if x[1] is None else x[1][0]
    return [(dtype, (rows, (length or None) if output_mode == "int" else size))]


@module(stage="host", infer=_rows_spec)
class TextVectorization:
    """Texts as rows of ids: `[n]` or `[n, 1]` strings `-> [n, length]`, or `[n, size]` counts.

    Each text is lowercased (`lowercase`: "ascii", "utf-8" or "" for no change), matches of the RE2 patterns in
    `replace` are rewritten, the text is split at `separator` (empty: at runs of ASCII white space), and its tokens, or
    their n-grams of the widths `ngrams`, are looked up as in `Vocabulary`. `output_mode` "int" pads with `pad_id` or
    truncates to `length` (0: the longest row of the batch); "count" and "multi_hot" count the ids below `size`, in
    `dtype`.
    Source: Keras TextVectorization.
    """

    def __init__(
        self,
        vocabulary: Strings,
        first_id: int,
        oov_id: int,
        oov_buckets: int = 0,
        mask_token: bytes | None = None,
        mask_id: int = 0,
        lowercase: Literal["", "ascii", "utf-8"] = "",
        replace: tuple[tuple[bytes, bytes], ...] = (),
        separator: bytes = b"",
        ngrams: tuple[int, ...] = (),
        ngram_separator: bytes = b" ",
        output_mode: Literal["int", "multi_hot", "count", "tf_idf"] = "int",
        length: int = 0,
        pad_id: int = 0,
        size: int = 0,
        dtype: Dtype = "int64",
    ) -> None:
        self.vocabulary = Vocabulary(vocabulary, first_id, oov_id, oov_buckets, mask_token, mask_id)
        self.changes: list[Change] = []
        if lowercase:
            self.changes.append(("lower", {"encoding": {"ascii": "", "utf-8": "utf-8"}[lowercase]}))
        self.changes += [("regex_replace", {"pattern": pattern, "rewrite": rewrite}) for pattern, rewrite in replace]
        self.separator, self.ngrams, self.ngram_separator = separator, tuple(ngrams), ngram_separator
        self.output_mode, self.length, self.pad_id = output_mode, length, pad_id
        self.size, self.dtype = size, dtype
        self._pipeline = pipeline_of((), self)

    def __call__(self, x: Strings) -> Tensor:
        if self._pipeline is not None and native.core is not None:
            return self._pipeline(x)
        if x.ndim == 2 and x.shape[1] != 1:
            raise InputError(f"texts have shape {list(x.shape)}, expected one text per row")
        return self.without_core(x.ravel().tolist())

    def without_core(self, texts: list[bytes]) -> Tensor:
        """The same for a list of texts, op by op, without the native core."""
        x = strings(texts, (-1,))
        for op, attrs in self.changes:
            x = {"lower": lower, "regex_replace": regex_replace}[op](x, **attrs)
        indices, tokens, _ = split(x, sep=self.separator)
        lengths = np.bincount(indices.numpy()[:, 0], minlength=len(texts))
        if self.ngrams:
            tokens, splits = ngrams(tokens, _splits(lengths), separator=self.ngram_separator, widths=self.ngrams)
            lengths = np.diff(splits.numpy())
        ids = self.vocabulary.array(tokens)
        return self._padded(ids, lengths) if self.output_mode == "int" else self._counted(ids, lengths)

    def _padded(self, ids: np.ndarray[Any, np.dtype[np.int64]], counts: Any) -> Tensor:
        width = self.length or (int(counts.max()) if len(counts) else 0)
        out = np.full((len(counts), width), self.pad_id, np.int64)
        kept = np.arange(width) < counts[:, None]
        if int(counts.max(initial=0)) <= width:
            out[kept] = ids
        else:
            columns = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
            out[kept] = ids[columns < width]
        return torch.as_tensor(out)

    def _counted(self, ids: np.ndarray[Any, np.dtype[np.int64]], lengths: Any) -> Tensor:
        weights = torch.empty(0, dtype=torch_dtype(self.dtype))
        values = torch.from_numpy(ids)  # type: ignore[reportUnknownMemberType]
        return ragged_bincount(
            _splits(lengths), values, self.size, weights, binary_output=self.output_mode == "multi_hot"
        )


def _splits(lengths: Any) -> Tensor:
    """Where each row begins, and the last one ends."""
    out = np.zeros(len(lengths) + 1, np.int64)
    lengths.cumsum(out=out[1:])
    return torch.from_numpy(out)  # type: ignore[reportUnknownMemberType]
