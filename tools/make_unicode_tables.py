"""Writes torch_towers/formats/unicode_tables.py: where TensorFlow Text's Unicode (ICU 77, Unicode 16) differs from Python's.

The data is queried from TensorFlow Text; the package `unicodedata2` (Unicode 18) provides the combining classes, which never change
once assigned, and characters that later Pythons will know and TensorFlow does not. Run: `python tools/make_unicode_tables.py` under
Python 3.11 (Unicode 14, the oldest that torch_towers runs on) with `tensorflow_text` and `unicodedata2` installed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_text as text
import unicodedata2
from tensorflow_text.python.ops import normalize_ops

OPS: Any = normalize_ops.gen_normalize_ops
CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
TARGET = Path(__file__).parent.parent / "torch_towers" / "unicode_tables.py"


def normalized(texts: Iterable[str], form: str) -> list[str]:
    result = OPS.normalize_utf8([item.encode() for item in texts], form).numpy().tolist()
    return [item.decode() for item in result]


def ranges(codes: Iterable[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def python_fold(text: str) -> str:
    """What the runtime does for characters outside the tables."""
    nfd = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", nfd.casefold()).casefold())


def reorders(code: int, mark: str, before: bool) -> bool:
    pair = mark + chr(code) if before else chr(code) + mark
    return normalized([pair], "NFD")[0] != pair


def scripts() -> Iterator[tuple[int, int]]:
    """(first code point, class) of every run of one script. Classes are numbers of ours: TensorFlow only tells scripts apart."""
    from tensorflow_text.python.ops.unicode_script_tokenizer import gen_unicode_script_tokenizer as kernel

    def lengths(codes: list[int], splits: list[int]) -> Any:
        result = kernel.unicode_script_tokenize_with_offsets(codes, splits, keep_whitespace=False)
        return result.output_offset_starts.numpy(), result.output_outer_splits.numpy()

    space = {code for code in CODES if chr(code).isspace() and code not in range(0x1C, 0x20)}  # all of script Common
    codes = [code for code in range(0x110000) if code not in space]
    starts, _ = lengths(codes, [0, len(codes)])
    runs = [codes[start] for start in starts]
    kinds: list[int] = []  # one code point of each script
    for run in runs:
        pairs = [code for kind in kinds for code in (kind, run)]
        _, outer = lengths(pairs, list(range(0, len(pairs) + 1, 2)))
        same = [index for index in range(len(kinds)) if outer[index + 1] - outer[index] == 1]
        if not same:
            kinds.append(run)
        yield run, same[0] if same else len(kinds) - 1


def breaks() -> list[int]:
    """What FastWordpieceTokenizer splits at on both sides: punctuation and Chinese characters."""
    tokenizer = text.FastWordpieceTokenizer(vocab=["[UNK]", "a", "##a"], token_out_type=tf.int32)
    ids = tokenizer.tokenize([f"a{chr(code)}a".encode() for code in CODES])
    return [
        code for code, count in zip(CODES, ids.row_lengths().numpy(), strict=True) if count == 3 and code != ord("a")
    ]


def sentence_marks() -> dict[str, list[int]]:
    """What ends a sentence, and what opens and closes a parenthesis, told from the fragments of tiny documents."""
    from tensorflow_text.python.ops.sentence_breaking_ops import gen_sentence_breaking_ops as kernel

    codes = [code for code in CODES if code]

    def first(*words: str | None) -> Any:
        """The first fragment of the document `words`, None standing for each code point: (properties, its length)."""
        tokens = [(word or chr(code)).encode() for code in codes for word in words]
        zeros = [0] * len(tokens)
        found = kernel.sentence_fragments(
            [len(words)] * len(codes), zeros, zeros, tokens, zeros, input_encoding="UTF-8"
        )
        firsts = found.output_row_lengths.numpy().cumsum() - found.output_row_lengths.numpy()
        return found.fragment_properties.numpy()[firsts], found.fragment_end.numpy()[firsts]

    (alone, _), (second, _), (opens, _) = first(None), first(".", None), first(None, ".", ")")
    _, after_closing = first(".", ")", None)
    terminal = [code for code, bits in zip(codes, alone, strict=True) if bits & 1]
    assert [code for code, bits in zip(codes, second, strict=True) if bits & 2] == [
        code for code in terminal if code != 0x2026
    ]
    return {
        "TERMINAL": terminal,
        "CLOSING": [code for code, length in zip(codes, after_closing, strict=True) if length == 3],
        "OPENING": [code for code, bits in zip(codes, opens, strict=True) if bits & 8],
    }


def main() -> None:
    texts = [chr(code) for code in CODES]
    nfkd, nfd = normalized(texts, "NFKD"), normalized(texts, "NFD")
    folds = [item.decode() for item in OPS.case_fold_utf8([item.encode() for item in texts]).numpy().tolist()]
    later, classes, canonical, compatible = [], {}, {}, {}
    for code, compat, canon in zip(CODES, nfkd, nfd, strict=True):
        character = chr(code)
        if unicodedata.category(character) != "Cn":
            continue
        ccc, decomposition = unicodedata2.combining(character), unicodedata2.decomposition(character)
        if decomposition and compat == character:
            later.append(code)
        elif decomposition:
            target = canonical if canon == compat != character and canon != character else compatible
            parts = "".join(chr(int(part, 16)) for part in decomposition.split() if not part.startswith("<"))
            target[character] = parts
        elif ccc:
            known = reorders(code, "\u0334", False) or reorders(code, "\u0301", True)
            if known:
                classes[character] = ccc
            else:
                later.append(code)
    ignored = [code for code, fold in zip(CODES, folds, strict=True) if not fold]
    changed = {
        chr(code): fold for code, fold in zip(CODES, folds, strict=True) if fold and python_fold(chr(code)) != fold
    }
    new_folds = {key: fold for key, fold in changed.items() if key not in compatible}
    assert all(compatible[key].casefold() == fold for key, fold in changed.items() if key in compatible)
    later_folds = [
        code
        for code, fold in zip(CODES, folds, strict=True)
        if unicodedata.category(chr(code)) == "Cn"
        and fold == chr(code)
        and unicodedata2.category(chr(code)) in ("Lu", "Lt")
    ]
    lines = [
        '"""Where TensorFlow Text\'s Unicode (ICU 77, Unicode 16) differs from Python\'s. Written by tools/make_unicode_tables.py."""',
        "", "from __future__ import annotations", "", "# fmt: off",
        f"COMBINING: dict[str, int] = {classes!a}", "",
        f"CANONICAL: dict[str, str] = {canonical!a}", "",
        f"COMPATIBLE: dict[str, str] = {compatible!a}", "",
        f"FOLDS: dict[str, str] = {new_folds!a}", "",
        f"LATER: list[tuple[int, int]] = {ranges(later)}", "",
        f"LATER_FOLDS: list[tuple[int, int]] = {ranges(later_folds)}", "",
        f"IGNORED: list[tuple[int, int]] = {ranges(ignored)}", "",
        f"BREAKS: list[tuple[int, int]] = {ranges(breaks())}", "",
        *(line for name, codes in sentence_marks().items() for line in (f"{name}: list[tuple[int, int]] = {ranges(codes)}", "")),
        f"SCRIPTS: list[tuple[int, int]] = {list(scripts())}", "# fmt: on", "",
    ]  # fmt: skip
    TARGET.write_text("\n".join(lines))


if __name__ == "__main__":
    assert text and unicodedata.unidata_version == "14.0.0"
    main()
