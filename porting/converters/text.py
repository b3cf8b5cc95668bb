"""TensorFlow Text: normalization and tokenization."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.errors import PortingError

Emit = ConvertingEmitter
_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
_TOKENS = ("output_values", "output_row_splits", "start_values", "limit_values")
_CODEPOINTS = (
    "output_values", "output_values_inner_splits", "output_offset_starts", "output_offset_limits", "output_outer_splits",
)  # fmt: skip


@converter("CaseFoldUTF8")
def case_fold(t: Emit, x: Any) -> Any:
    return t.case_fold_utf8(x)


@converter("NormalizeUTF8")
def normalize(t: Emit, x: Any, *, normalization_form: bytes) -> Any:
    return t.normalize_utf8(x, form=_form(t, normalization_form))


def _form(t: Emit, form: bytes | str) -> str:
    name = (form.decode() if isinstance(form, bytes) else form).upper()
    if name not in _FORMS:
        raise PortingError(
            f"{t.scope!r} asks for the normalization form {name!r}, which TensorFlow does not know: expected {', '.join(_FORMS)}"
        )
    return name


@converter("RegexSplitWithOffsets", outputs=("tokens", "begin_offsets", "end_offsets", "row_splits"))
def regex_split(t: Emit, x: Any, delimiter: bytes, keep: bytes) -> Any:
    return t.regex_split_with_offsets(x, delimiter=delimiter, keep=keep)


@converter("WhitespaceTokenizeWithOffsets", outputs=_CODEPOINTS)
def whitespace(t: Emit, values: Any, splits: Any) -> Any:
    return t.whitespace_tokenize_codepoints(t.tensor(values), t.tensor(splits))


@converter("UnicodeScriptTokenizeWithOffsets", outputs=_CODEPOINTS)
def unicode_script(t: Emit, values: Any, splits: Any, *, keep_whitespace: bool = False) -> Any:
    return t.unicode_script_tokenize(t.tensor(values), t.tensor(splits), keep_whitespace=keep_whitespace)


@converter("TFText>WhitespaceTokenizeWithOffsetsV2",
           outputs=("output_tokens", "output_row_splits", "output_start_offsets", "output_end_offsets"))  # fmt: skip
def whitespace_v2(t: Emit, x: Any, config: bytes) -> Any:
    return t.whitespace_tokenize(x, config=config)


@converter("SplitMergeTokenizeWithOffsets", outputs=_TOKENS)
def split_merge(t: Emit, x: Any, labels: Any, row_splits: Any, *, force_split_at_break_character: bool = True) -> Any:
    return t.split_merge_tokenize(
        x, t.tensor(labels), t.tensor(row_splits), force_split_at_break_character=force_split_at_break_character
    )


@converter("TokenizerFromLogits", outputs=("output_values", "row_splits", "start_values", "limit_values"))
def split_merge_from_logits(t: Emit, x: Any, logits: Any, force_split_at_break_character: Any) -> Any:
    return t.split_merge_from_logits(x, t.tensor(logits), t.tensor(force_split_at_break_character))
