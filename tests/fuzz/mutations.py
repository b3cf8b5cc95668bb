"""Format-aware mutations of bytes, JSON and protobuf messages."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

INTEGERS = [
    0,
    1,
    -1,
    2,
    3,
    7,
    255,
    256,
    1 << 16,
    1 << 24,
    1 << 28,
    (1 << 31) - 1,
    1 << 31,
    -(1 << 31),
    1 << 40,
    (1 << 63) - 1,
    -(1 << 63),
    1 << 64,
]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, 1e308, -1e308, 1e-12]
TEXTS = ["", "a", "0", "-1", "é", "\ud800", "\0", "../x", "x" * 5000, "NaN", "(" * 200, "%s", "\\x"]


def of_bytes(data: bytes, random: Random) -> bytes:
    """`data` with a change, deletion, insertion or repetition."""
    made = bytearray(data)
    at = random.randrange(len(made) + 1)
    end = min(len(made), at + random.choice((1, 1, 2, 4, 8, 32)))
    kind = random.randrange(6)
    if kind == 0 and at < len(made):
        made[at] ^= 1 << random.randrange(8)
    elif kind == 1:
        made[at:end] = random.randbytes(end - at)
    elif kind == 2:
        del made[at:end]
    elif kind == 3:
        made[at:at] = made[at:end] * random.choice((1, 2, 50))
    elif kind == 4:
        made[at:end] = random.choice(
            (b"\0", b"\xff", b"\n", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b'"', b"[", b"9" * 20)
        )
    else:
        del made[at:]
    return bytes(made)


def of_json(data: bytes, random: Random) -> bytes:
    """JSON with one value or key changed; other bytes are mutated as bytes."""
    try:
        whole = [json.loads(data)]
    except (ValueError, RecursionError):
        return of_bytes(data, random)
    if random.random() < 0.05:
        return of_bytes(data, random)
    places = list(_places(whole))
    parent, key = random.choice(places)
    if isinstance(parent, dict) and random.random() < 0.15:
        parent[random.choice(TEXTS)] = parent.pop(key)
    elif parent is not whole and random.random() < 0.15:
        del parent[key]
    else:
        parent[key] = _other(parent[key], places, random)
    try:
        return json.dumps(whole[0]).encode()
    except RecursionError:
        return b"[" * 5000 + data


def _places(value: Any) -> Any:
    """Every (container, key) of a JSON value."""
    stack = [value]
    while stack:
        item = stack.pop()
        keys = item.keys() if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in list(keys):
            yield item, key
            stack.append(item[key])


def _other(value: Any, places: list[Any], random: Random) -> Any:
    kind = random.randrange(9)
    if kind == 0:
        parent, key = random.choice(places)
        return copy.deepcopy(parent[key])
    if kind == 1 and isinstance(value, list) and value:
        return [*value, value[random.randrange(len(value))]] * random.choice((1, 1, 2, 100))
    if kind == 2:
        return random.choice([None, True, False, [], {}, [[]], {"": {}}])
    if kind == 3:
        return random.choice(FLOATS)
    if kind == 4:
        deep: Any = value
        for _ in range(random.choice((1, 2, 70, 2000))):
            deep = [deep]
        return deep if not isinstance(value, (dict, list)) else [value]
    if isinstance(value, str) or kind == 5:
        text = value if isinstance(value, str) else ""
        return random.choice([*TEXTS, text + text, text[:-1], text.upper(), text + "x"])
    return random.choice(INTEGERS)


def of_message(message: Any, random: Random) -> None:
    """Changes one field of a message, or of one inside it; values come from its siblings too."""
    fields = list(_fields(message))
    if not fields:
        return
    parent, field = random.choice(fields)
    value = getattr(parent, field.name)
    if _is_map(field):
        _change_map(value, field, random)
    elif _repeated(field):
        _change_list(value, field, fields, random)
    elif random.random() < 0.2:
        parent.ClearField(field.name)
    elif field.message_type is not None:
        others = [getattr(p, f.name) for p, f in fields if f.message_type is field.message_type and not _repeated(f)]
        value.CopyFrom(copy.deepcopy(random.choice(others)))
    else:
        setattr(parent, field.name, _scalar(field, fields, value, random))


def _fields(message: Any) -> Any:
    """Every (message, field) that is set, at any depth."""
    stack = [message]
    while stack:
        item = stack.pop()
        for field, value in item.ListFields():
            yield item, field
            if _is_map(field):
                parts = [value[key] for key in sorted(value)]  # a map's own order differs from run to run
                stack += [part for part in parts if hasattr(part, "ListFields")]
            elif field.message_type is not None:
                stack += list(value) if _repeated(field) else [value]


def _repeated(field: Any) -> bool:
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _change_map(value: Any, field: Any, random: Random) -> None:
    key = random.choice(sorted(value))
    kept = value[key]
    if field.message_type.fields_by_name["value"].message_type is not None:
        kept = copy.deepcopy(kept)
        kind = random.randrange(3)
        if kind == 0:
            del value[key]
        elif kind == 1:
            value[random.choice(sorted(value))].CopyFrom(kept)
        elif isinstance(key, str):
            del value[key]
            value[key + "x"].CopyFrom(kept)
    elif random.random() < 0.5:
        del value[key]
    else:
        value[key] = value[random.choice(sorted(value))]


def _change_list(value: Any, field: Any, fields: list[Any], random: Random) -> None:
    at, kind = random.randrange(len(value)), random.randrange(4)
    if kind == 0:
        del value[at]
    elif kind == 1:
        value.extend([copy.deepcopy(value[at])] * random.choice((1, 1, 2, 30)))
    elif field.message_type is None:
        value[at] = _scalar(field, fields, value[at], random)
    else:
        other = copy.deepcopy(value[random.randrange(len(value))])
        value[at].CopyFrom(other)


def _scalar(field: Any, fields: list[Any], value: Any, random: Random) -> Any:
    if random.random() < 0.4:  # the value of another such field
        others = [(p, f) for p, f in fields if f.name == field.name and f.type == field.type]
        parent, other = random.choice(others)
        found = getattr(parent, other.name)
        return random.choice(list(found)) if _repeated(other) else found
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return random.choice(FLOATS[:7])
    if isinstance(value, int):
        low, high = _RANGES.get(field.cpp_type, (-(1 << 31), (1 << 31) - 1))
        return random.choice([n for n in [*INTEGERS, value + 1, value - 1] if low <= n <= high])
    if isinstance(value, bytes):
        return of_bytes(value, random)
    return random.choice([*(text for text in TEXTS if text != "\ud800"), value + ":1", "^" + value, value[:-1]])


_RANGES = {2: (-(1 << 63), (1 << 63) - 1), 3: (0, (1 << 32) - 1), 4: (0, (1 << 64) - 1)}
