"""Exports a tower's tokenizer to the library tokenizers, if both produce the same ids for every text of the corpus."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.extras import need
from torch_towers.formats.flatbuffer import root
from torch_towers.formats.tensor_proto import fields
from torch_towers.graph.graph import Graph, ModuleSpec
from torch_towers.ops.text import integers
from torch_towers.program.program import Program
from torch_towers.source.simplify import ordered
from torch_towers.source.texts import corpus
from torch_towers.source.transformer import Transformer
from torch_towers.tower import Tower

_BATCH, _WORDS = 256, 2_000  # texts at once, words of the vocabulary that are texts too
_MAX_BYTES = 2_000  # attention over all positions of a longer text needs too much memory
_UNKNOWN, _USER = 2, 4  # types of SentencePiece's pieces
_NEVER = (
    2,
    3,
    5,
)  # those that no text is cut into: they are called by a space and their names, since texts have no spaces then


@dataclass(frozen=True, slots=True)
class Frame:
    """The special ids before and after the ids of a text, and the maximum length (None: unlimited)."""

    before: tuple[int, ...]
    behind: tuple[int, ...]
    limit: int | None
    pad: int


def write_tokenizer(tower: Tower, found: Transformer, folder: Path) -> str:
    """Writes tokenizer.json and its companions to `folder`; returns one sentence if there is no tokenizer to write."""
    strings = [spec.name for spec in tower.inputs if spec.dtype == "string"]
    if not strings:
        return f"no tokenizer is in it: the tower takes {'ids' if found.images is None else 'images'}"
    if len(tower.inputs) > 1:
        return "no tokenizer is in it: the tower takes more than one text"
    graph = tower.parts["preprocess"].graph
    held = {node.attrs["module"]: graph.modules[node.attrs["module"]] for node in graph.nodes if node.op == "module"}
    cutting = [spec for spec in held.values() if spec.type in _MADE]
    if len(cutting) != 1:
        return f"no tokenizer is in it: the tower cuts texts by {'several tokenizers' if cutting else 'ops of its own'}"
    try:
        made = _MADE[cutting[0].type](tower, cutting[0])
        ids_of = _Ids(tower, found)
        frame = ids_of.frame()
    except _UnlikeError as error:
        return f"no tokenizer is in it: {error}"
    texts = [text for text in corpus() if len(text) <= _MAX_BYTES and _is_text(text)]
    last = (-1, "")
    for tokenizer in made:
        texts += [
            word.replace("\u2581", " ").encode() for word in sorted(tokenizer.get_vocab())[:_WORDS] if last[0] < 0
        ]
        differs = _first_difference(ids_of, _framed(tokenizer, frame), texts)
        if differs is None:
            differs = _first_difference(ids_of, _saved(tokenizer, frame, folder), texts)
            if differs is None:
                return ""
            for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
                (folder / file).unlink(missing_ok=True)
        last = max(last, differs)
    return f"no tokenizer is in it: {last[1]}"


class _UnlikeError(Exception):
    """A feature of the tower's tokenizer that the library lacks."""


class _Ids:
    """The ids of texts that the encoder's attention mask keeps."""

    def __init__(self, tower: Tower, found: Transformer) -> None:
        self.tower, self.ids = tower, found.ids
        self.name = tower.inputs[0].name
        graph = tower.encoder.graph
        self.mask: Program | None = None
        if found.mask is not None:
            part = ordered(Graph(graph.inputs, graph.nodes, {"mask": found.mask}, graph.modules))
            self.mask = Program(part, tower.encoder.tensors())
        self.pad = 0
        self.known: dict[tuple[bytes, ...], list[list[int]]] = {}

    def __call__(self, texts: Sequence[bytes]) -> list[list[int]]:
        key = tuple(texts)
        if key not in self.known:
            self.known[key] = self._cut(texts)
        return self.known[key]

    def _cut(self, texts: Sequence[bytes]) -> list[list[int]]:
        given: dict[str, Any] = self.tower.preprocess({self.name: np.array([*texts, b""], object)[:-1]})
        ids: Tensor = given[self.ids]
        kept = torch.ones(ids.shape, dtype=torch.bool)
        if self.mask is not None:
            with torch.no_grad():
                value: Tensor = self.mask(**{spec.name: given[spec.name] for spec in self.mask.graph.inputs})["mask"]
            kept = allowed(value, ids.shape)
        if bool((kept[:, 1:] & ~kept[:, :-1]).any()):
            raise _UnlikeError("the tower pads its texts in front")
        if not kept.all():
            self.pad = int(ids[~kept][0])
        return [integers(row[places]) for row, places in zip(ids, kept, strict=True)]

    def frame(self) -> Frame:
        """Infers the frame from the ids of an empty text, of short texts and of a long one."""
        empty, one, long = self([b"", b"a", b"a b " * 400])
        before = 0
        while before < min(len(empty), len(one)) and empty[before] == one[before]:
            before += 1
        return Frame(tuple(empty[:before]), tuple(empty[before:]), len(long) if len(long) < 800 else None, self.pad)


def allowed(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """Positions any query may attend to, from an attention mask: `[batch, ..., length] -> [batch, length]` bool."""
    value = mask > _FAR if mask.is_floating_point() else mask.bool()
    while value.ndim > 2:
        value = value.any(-2)
    return value.expand(*shape)


_FAR = -1000.0
"""Additive masks are below this value at masked positions: TensorFlow's towers add -10,000 or less."""


# -- the tokenizers of the library ----------------------------------------------------------------------------------------


def _wordpieces(vocabulary: Mapping[str, int], unknown: str, suffix: str, longest: int) -> Iterator[Any]:
    """WordPiece after each variant of normalization and splitting into words."""
    tokenizers = need("tokenizers", "transformers")
    if unknown not in vocabulary:
        raise _UnlikeError(f"its vocabulary has no {unknown}")
    for normalizer, words in (*_bert_words(tokenizers), *_tensorflow_words(tokenizers)):
        model = tokenizers.models.WordPiece(
            dict(vocabulary), unk_token=unknown, continuing_subword_prefix=suffix, max_input_chars_per_word=longest
        )
        made = tokenizers.Tokenizer(model)
        made.normalizer, made.pre_tokenizer = normalizer, words
        made.decoder = tokenizers.decoders.WordPiece(prefix=suffix)
        yield made


def _bert_words(tokenizers: Any) -> Iterator[tuple[Any, Any]]:
    """BERT's own word splitting, cased and uncased."""
    for lower in (True, False):
        yield (
            tokenizers.normalizers.BertNormalizer(lowercase=lower, strip_accents=lower),
            tokenizers.pre_tokenizers.BertPreTokenizer(),
        )


_SPACES = r"[ \t\n\f\r]|\p{Cc}|\p{Cf}"
_KEPT = (
    r"[!-/]|[:-@]|[\[-`]|[{-~]|\p{P}|[\x{4E00}-\x{9FFF}]|[\x{3400}-\x{4DBF}]|[\x{20000}-\x{2A6DF}]|[\x{2A700}-\x{2B73F}]"
    r"|[\x{2B740}-\x{2B81F}]|[\x{2B820}-\x{2CEAF}]|[\x{F900}-\x{FAFF}]|[\x{2F800}-\x{2FA1F}]"
)
"""TensorFlow Text and KerasHub split at these, and keep punctuation and Chinese characters as words."""


def _tensorflow_words(tokenizers: Any) -> Iterator[tuple[Any, Any]]:
    """TensorFlow Text's and KerasHub's splitting: case folding before or after removal of accents, or unchanged texts."""
    normalizers, splitters = tokenizers.normalizers, tokenizers.pre_tokenizers
    words = splitters.Sequence([
        splitters.Split(tokenizers.Regex(_SPACES), "removed"), splitters.Split(tokenizers.Regex(_KEPT), "isolated"),
    ])  # fmt: skip
    accents = [normalizers.NFD(), normalizers.Replace(tokenizers.Regex(r"\p{Mn}"), "")]
    folded = _folded(tokenizers)
    for steps in ([*folded, *accents], folded, [*accents, *folded], [], accents):
        yield normalizers.Sequence(steps), words


_IGNORED = (
    r"[\x{AD}\x{34F}\x{61C}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{200B}-\x{200F}\x{202A}-\x{202E}\x{2060}-\x{206F}\x{3164}"
    r"\x{FE00}-\x{FE0F}\x{FEFF}\x{FFA0}\x{FFF0}-\x{FFF8}\x{1BCA0}-\x{1BCA3}\x{1D173}-\x{1D17A}\x{E0000}-\x{E0FFF}]"
)
"""Unicode's Default_Ignorable_Code_Point, which NFKC_Casefold removes."""


def _folded(tokenizers: Any) -> list[Any]:
    """Unicode's NFKC_Casefold: lower case, and what differs from that, character by character, between two compositions."""
    normalizers = tokenizers.normalizers
    characters = [chr(i) for i in range(0x80, 0x20000) if not 0xD800 <= i < 0xE000]
    other = [c for c in characters if c.casefold() != c.lower()]
    before = {c: c.casefold() for c in other if c.casefold().lower() == c.casefold()}
    behind = {c.lower(): c.casefold() for c in other if c not in before}
    replaced = [[normalizers.Replace(c, folded) for c, folded in part.items()] for part in (before, behind)]
    composed = [normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(_IGNORED), "")]
    return [*composed, *replaced[0], normalizers.Lowercase(), *replaced[1], normalizers.NFKC()]


def _wordpiece(tower: Tower, spec: ModuleSpec) -> Iterator[Any]:
    args = spec.args
    store = tower.side().store
    keys: Any = store[str(args["keys"])]
    values: Any = store[str(args["values"])]
    vocabulary = {
        bytes(key).decode(errors="replace"): int(i) for key, i in zip(keys.tolist(), integers(values), strict=True)
    }
    unknown = args.get("unknown_token")
    if unknown is None:
        raise _UnlikeError("it has no token for unknown words")
    longest = int(args["max_bytes_per_word"])
    return _wordpieces(vocabulary, bytes(unknown).decode(), bytes(args["suffix_indicator"]).decode(), longest)


def _fast_wordpiece(tower: Tower, spec: ModuleSpec) -> Iterator[Any]:
    config = root(_stored(tower, spec), "FastWordpiece")
    if not config.boolean(11):
        raise _UnlikeError("its vocabulary is not written out in its model (support_detokenization)")
    suffix = config.string(5)
    inside = (config.vector(13, "u1") != 0).tolist()
    pieces = [(suffix if within else b"") + piece for piece, within in zip(config.strings(12), inside, strict=False)]
    vocabulary = {piece.decode(errors="replace"): i for i, piece in enumerate(pieces)}
    return _wordpieces(vocabulary, config.string(6).decode(), suffix.decode(), config.integer(4))


def _sentencepiece(tower: Tower, spec: ModuleSpec) -> Iterator[Any]:
    """A unigram model: pieces and scores, normalization, and white space as a part of words."""
    tokenizers = need("tokenizers", "transformers")
    pieces: list[tuple[str, float]] = []
    unknown, user, charsmap, normal = 0, list[int](), b"", {3: 1, 4: 1, 5: 1}
    for number, _, _, content in fields(_stored(tower, spec)):
        if number == 1:
            piece, score, kind = _piece(content)
            unknown = len(pieces) if kind == _UNKNOWN else unknown
            user += [len(pieces)] if kind == _USER else []
            pieces.append((f" {piece}" if kind in _NEVER else piece, score))
        elif number == 2 and {n: value for n, _, value, _ in fields(content)}.get(3, 1) != 1:
            raise _UnlikeError("its SentencePiece model is none of unigrams")
        elif number == 3:
            for n, _, value, inner in fields(content):
                charsmap = inner if n == 2 else charsmap
                normal[n] = value
    if not normal[3] or not normal[5]:
        raise _UnlikeError("its SentencePiece model puts no space before a text, or keeps spaces")
    best = max(score for piece, score in pieces if not piece.startswith(" "))
    for i in user:  # SentencePiece's own score of pieces that a text is always cut into
        pieces[i] = (pieces[i][0], len(pieces[i][0]) * best - 0.1)
    made = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unknown, False))
    normalizers = tokenizers.normalizers
    steps = [normalizers.Precompiled(charsmap)] if charsmap else []
    if normal[4]:
        steps += [normalizers.Replace(tokenizers.Regex("^ +| +$| +(?= )"), "")]
    made.normalizer = normalizers.Sequence(steps)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    made.decoder = tokenizers.decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    yield made


def _piece(content: bytes) -> tuple[str, float, int]:
    """A piece of a SentencePiece model: its text, its score, its type."""
    text, score, kind = "", 0.0, 1
    for number, _, value, inner in fields(content):
        if number == 1:
            text = inner.decode(errors="replace")
        elif number == 2:
            (score,) = struct.unpack("<f", inner)
        elif number == 3:
            kind = value
    return text, score, kind


def _stored(tower: Tower, spec: ModuleSpec) -> bytes:
    """The bytes of a layer's model."""
    model = tower.side().store[str(spec.args["model"])]
    assert isinstance(model, Tensor)
    return model.numpy().tobytes()


_MADE = {
    "WordpieceTokenizer": _wordpiece,
    "FastWordpieceTokenizer": _fast_wordpiece,
    "SentencepieceTokenizer": _sentencepiece,
    "SentencepieceRows": _sentencepiece,
}
"""Candidate tokenizers of the library, by the layer that tokenizes."""


# -- the comparison -------------------------------------------------------------------------------------------------------


_Cut = Callable[[list[str]], list[list[int]]]
"""Maps texts to ids with a tokenizer of the library."""


def _framed(tokenizer: Any, frame: Frame) -> _Cut:
    """The tokenizer, with what stands around a text, how many ids there are at most, and special tokens that are text in a text."""
    processors = need("tokenizers", "transformers").processors
    around = [*frame.before, *frame.behind]
    names = {i: tokenizer.id_to_token(i) for i in around}
    if None in names.values():
        raise _UnlikeError("what stands around a text is not in its vocabulary")
    single = [*(names[i] for i in frame.before), "$A", *(names[i] for i in frame.behind)]
    if around:
        special = [(name, i) for i, name in names.items()]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    if frame.limit is not None:
        tokenizer.enable_truncation(frame.limit)
    tokenizer.encode_special_tokens = True
    return lambda texts: [found.ids for found in tokenizer.encode_batch(texts)]


def _first_difference(ids_of: _Ids, cut: _Cut, texts: Sequence[bytes]) -> tuple[int, str] | None:
    """The index of the first text with different ids and a sentence about it; None if all ids are equal."""
    for start in range(0, len(texts), _BATCH):
        some = texts[start : start + _BATCH]
        try:
            ours = ids_of(some)
        except InputError as error:
            return start, f"the tower refuses a text: {error}"
        theirs = cut([text.decode() for text in some])
        for i, (text, mine, other) in enumerate(zip(some, ours, theirs, strict=True)):
            if mine != other:
                said = f"of {text.decode()[:60]!a} the tower makes {mine[:12]}, and the library tokenizers {other[:12]}"
                return start + i, said
    return None


def _is_text(text: bytes) -> bool:
    """Whether bytes are UTF-8 without NUL, at which TensorFlow's WordPiece ends a text."""
    try:
        return "\0" not in text.decode()
    except UnicodeDecodeError:
        return False


def _saved(tokenizer: Any, frame: Frame, folder: Path) -> _Cut:
    """Writes the files for `AutoTokenizer` and `SentenceTransformer` and returns the tokenizer read back from them."""
    transformers: Any = need("transformers", "transformers")
    names: dict[str, str] = {"pad_token": tokenizer.id_to_token(frame.pad)}
    if frame.before:
        names["cls_token"] = tokenizer.id_to_token(frame.before[0])
    if frame.behind:
        names["sep_token" if frame.before else "eos_token"] = tokenizer.id_to_token(frame.behind[-1])
    unknown = getattr(tokenizer.model, "unk_token", None)
    if unknown is not None:
        names["unk_token"] = unknown
    limit = {} if frame.limit is None else {"model_max_length": frame.limit}
    tokenizer.no_truncation()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, split_special_tokens=True, **names, **limit)
    made.save_pretrained(folder)
    read = transformers.AutoTokenizer.from_pretrained(folder)
    return lambda texts: read(texts, truncation=frame.limit is not None)["input_ids"]
