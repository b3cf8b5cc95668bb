"""Test texts: thousands in every major script, generated from Unicode's tables. Equal tokenizers agree on all of them."""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from functools import lru_cache

import numpy as np

from torch_towers.formats import normalization

_LAST = 0x30000  # planes 0 to 2: every script
_SMALLEST = 24  # letters: a script with fewer is left out


def _kinds(characters: list[str]) -> list[int]:
    return normalization.scripts(np.array([*map(ord, characters)])).tolist()


@lru_cache(maxsize=1)
def scripts() -> dict[int, str]:
    """The letters and marks of each script. Shared characters (digits, punctuation, most marks) are in the special texts."""
    found: dict[int, list[str]] = defaultdict(list)
    characters = [each for each in map(chr, range(0x41, _LAST)) if unicodedata.category(each)[0] in "LM"]
    for kind, character in zip(_kinds(characters), characters, strict=True):
        found[kind].append(character)
    for shared in _kinds(["1", "\u0301"]):
        del found[shared]
    return {kind: "".join(letters) for kind, letters in found.items() if len(letters) >= _SMALLEST}


SPECIAL: list[bytes] = [
    b"", b" ", b"   ", b"\0", b"a\0b", b"\0\0", b"\t\n\r\x0b\x0c", b"\xc2\xa0", b"\xe3\x80\x80", b"\xe2\x80\xa8x\xe2\x80\xa9", b"\xc2\x85",
    # not UTF-8: lone bytes, overlong forms, surrogates, cut off, beyond the last code point
    b"\xff", b"\x80", b"a\xffb", b"\xc0\x80", b"\xed\xa0\x80", b"\xed\xb0\x80x", b"\xf5\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"x\xf0\x9f\x98",
    b"\xc3", b"e\xcc\x81\xff\xcc\x81", b"\xe1\x84\x80\xff\xe1\x85\xa1", b"\xef\xbf\xbd", b"\xef\xbb\xbfbom",
    # Turkish, German, Greek, ligatures, width, Hangul, marks in any order
    *(text.encode() for text in (
        "İstanbul ILGIN ısı i̇", "Straße STRASSE ẞß", "ΌΣΟΣ ὈΔΥΣΣΕΎΣ ς", "ﬁn ﬄ ǆ Ǆ ĳ", "ｆｕｌｌ　ｗｉｄｔｈ，Ａ１！", "ﾊﾝｶｸ ｶﾞ", "가각 \u1100\u1161\u11a8 ᄀ",
        "e\u0301\u0323 e\u0323\u0301 \u1e09 \u0344 \u0f73\u0f71", "\u0301", "a\u0334\u0301\u0315", "Å Å Å", "½ ² ™ ℡ ㎞ ﷺ", "\u200bzero\u200dwidth\ufeff \u00adhyphen",
        "👨\u200d👩\u200d👧\u200d👦 👍🏽 🇩🇪 ❤️ 🏴\U000e0067\U000e0062\U000e007f", "สวัสดีครับยินดีต้อนรับ", "日本語のテキスト、中文。한국어", "𠀀𪜶 𝒳𝔘𝟙", "\u2581\u2581a \u2581",
        "\u202eright\u202c", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "...!!!???", "「」、。！？", "¿¡«»“”‘’–—…", "--- '' ``", "Ωmega 5Å x² №", "a/b\\c_d-e.f@g#h",
    )),
    # pieces that look like a tokenizer's own
    b"<s>a</s><unk><pad>", b"[UNK] [CLS] [unused1] ##a ##", b"<0x41><0xFF>", b"##", b"#", b"##x", b"a##b", b"[PAD][MASK]",
    # long
    b"x" * 10_000, b"x y " * 2_500, "日".encode() * 3_400, "é".encode() * 5_000, b"!" * 2_000, b"\xff" * 1_000, "e\u0301".encode() * 3_000,
    b"a" * 99 + b" " + b"a" * 100 + b" " + b"a" * 101, "é".encode() * 50 + b" " + "é".encode() * 51,
]  # fmt: skip
_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "search",
    "model",
    "tower",
    "query",
    "candidate",
    "embedding",
    "unaffable",
]


@lru_cache(maxsize=1)
def corpus() -> list[bytes]:
    """At least 10,000 texts: the special ones, and for each script words, mixtures and corrupted bytes."""
    pick = random.Random(2026)
    letters = scripts()
    everything = "".join(letters.values())
    texts = list(SPECIAL)
    each = 10_000 // len(letters) + 1
    for alphabet in letters.values():
        window = 40 if len(alphabet) > 200 else len(alphabet)
        for index in range(each):
            start = pick.randrange(len(alphabet) - window + 1)
            near = alphabet[start : start + window]
            words = ["".join(pick.choice(near) for _ in range(pick.randint(1, 7))) for _ in range(pick.randint(1, 4))]
            if index % 3 == 0:
                words.insert(
                    pick.randint(0, len(words)),
                    pick.choice([*_WORDS, "The", "QUICK!", "3.14", "x\u0301", "İ", "ß", pick.choice(everything)]),
                )
            text = pick.choice([" ", " ", "  ", ", ", "-", "\u3000", "\u200d", ""]).join(words).encode()
            if index % 11 == 0:  # a byte of another kind
                at = pick.randint(0, len(text))
                text = text[:at] + bytes([pick.choice([0, 0x80, 0x9F, 0xC0, 0xC3, 0xE2, 0xED, 0xF0, 0xFF])]) + text[at:]
            elif index % 13 == 0:  # cut off
                text = text[: pick.randint(0, len(text))]
            texts.append(text)
    return texts
