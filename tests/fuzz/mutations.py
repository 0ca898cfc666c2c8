"""Inputs that nobody would write, made out of good ones by a generator: the structure is kept, so
that what is odd comes to the check that is to refuse it.

    rng = random.Random("0/settings/17")
    mutations.of_json(rng, b'{"step": 1}')      # b'{"step": -9223372036854775809}'
"""

import copy
import csv
import gzip
import io
import json
import random
import struct
from typing import Any

INTS = [0, -1, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65_535, 65_536, (1 << 31) - 1, 1 << 31, 1 << 32]
INTS += [
    (1 << 53) + 1,
    (1 << 63) - 1,
    1 << 63,
    -(1 << 63),
    -(1 << 63) - 1,
    1 << 64,
    10**30,
    10**400,
]
FLOATS = [0.0, -0.0, 0.5, 1.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf")]
FLOATS += [1.0000000001, 3.4e38, 1e39, -0.5, 1e-8, 2.0**63]
TEXTS = [
    "",
    " ",
    "x",
    "nan",
    "inf",
    "-inf",
    "null",
    "true",
    "0",
    "-1",
    "1e400",
    "../../x",
    "/",
    ".",
]
TEXTS += [
    "${oc.env:HOME}",
    "${x}",
    "???",
    "\0",
    "\ud800",
    "a" * 2000,
    "<|endoftext|>",
    "\n",
    "\r\n",
]
TEXTS += [
    "/etc/passwd",
    "_target_",
    "os.system",
    "\u00e9\n",
    "\u202eabc",
    "\x1b[31m",
    "%s{0}",
    "\\",
]
TEXTS += [
    "F32",
    "F64",
    "BF16",
    "I64",
    "U8",
    "bpe",
    "char",
    "byte",
    "gru",
    "mlp",
    "transformer",
    "bigram",
]
TEXTS += [
    "COMPLETE",
    "failed",
    "ok",
    "(a+)+$",
    "(",
    "[",
    r"\p{L}",
    r"\p{",
    "(?R)",
    ".{1,9999}",
    "]]>",
]
KEYS = ["_target_", "x", "name", "", "step", "__metadata__", "\ud800", "1", "a.b", "a" * 300]
PIECES = [b"*a", b"&a ", b"!!python/object:x ", b"- ", b"[", b"{", b"NaN", b"\\ud800", b'"', b"\n"]
PIECES += [
    b"\xff",
    b"\xef\xbb\xbf",
    b"\0",
    b": ",
    b"#",
    b"|",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"9" * 5000,
]
PIECES += [
    b"\xed\xa0\x80",
    b"1e999",
    b"-",
    b"'",
    b"<<: ",
    b"? ",
    b"\t",
    b"\r",
    b"\xe2\x80\xa8",
    b"]}",
]


def odd(rng: random.Random, value: Any = None) -> Any:
    """An odd value, most often of the type of `value`."""
    kind = type(value) if rng.random() < 0.7 else rng.choice([int, float, str, list, dict, bool])
    if kind is bool or (value is None and rng.random() < 0.2):
        return rng.choice([True, False, None])
    if kind is int:
        near = value + rng.choice([-1, 1, -value, value]) if isinstance(value, int) else 5
        return rng.choice([*INTS, near, near, rng.getrandbits(rng.randint(1, 80))])
    if kind is float:
        return rng.choice([*FLOATS, rng.uniform(-10, 10), float(rng.choice(INTS[:-1]))])
    if kind is str:
        return text(rng, value if isinstance(value, str) else "")
    if kind is list:
        items = value if isinstance(value, list) else [odd(rng, 1), odd(rng, "")]
        n = rng.randint(0, len(items))
        return rng.choice(
            [[], items[:n], items + items, items[::-1], [items], [None] * 50, [items] * 3]
        )
    return rng.choice(
        [{}, {"": None}, {"_target_": "os.system"}, {"x": value}, {rng.choice(KEYS): 1}]
    )


def text(rng: random.Random, value: str = "") -> str:
    """A text that is odd, or the given one with a few characters changed."""
    how = rng.randint(0, 4)
    if how <= 1 or not value:
        return rng.choice(TEXTS)
    at = rng.randint(0, len(value))
    if how == 2:
        return value[:at] + rng.choice(TEXTS) + value[at:]
    if how == 3:
        return value[:at] + value[at + rng.randint(0, 5) :]
    return value * rng.randint(2, 40) if len(value) < 1000 else value[:at]


def places(value: Any, at: tuple = ()) -> list[tuple]:
    """The path of every value inside a JSON value."""
    found = [at]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*at, key))
    elif isinstance(value, list):
        for key, inner in enumerate(value):
            found += places(inner, (*at, key))
    return found


def changed(rng: random.Random, value: Any) -> Any:
    """The JSON value with a few parts replaced, taken out, doubled, exchanged or nested deeper."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        every = places(value)
        at = rng.choice(every)
        if not at:
            if rng.random() < 0.1:
                return odd(rng, value)
            continue
        parent = _at(value, at[:-1])
        how = rng.randint(0, 9)
        if how == 0:
            del parent[at[-1]]
        elif how == 1 and isinstance(parent, dict):
            parent[rng.choice([*KEYS, *parent])] = odd(rng, parent[at[-1]])
        elif how == 2:
            parent[at[-1]] = copy.deepcopy(_at(value, rng.choice(every)))
        elif how == 3:
            for _ in range(rng.choice([1, 1, 2, 30, 200])):
                parent[at[-1]] = rng.choice([[parent[at[-1]]], {"a": parent[at[-1]]}])
        elif how == 4 and isinstance(parent, list):
            parent[at[-1] : at[-1]] = parent[at[-1] :]
        else:
            parent[at[-1]] = odd(rng, parent[at[-1]])
    return value


def _at(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The bytes with a few stretches flipped, cut, repeated, exchanged or written over."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randint(0, max(0, len(found) - 1))
        n = rng.choice([1, 2, 4, 8, rng.randint(0, 40), rng.randint(0, len(found))])
        how = rng.randint(0, 6)
        if how == 0:
            found[at : at + n] = rng.randbytes(rng.randint(0, 20))
        elif how == 1:
            found[at:at] = found[at : at + min(n, 400)] * rng.randint(1, 50)
        elif how == 2:
            del found[at : at + n]
        elif how == 3:
            del found[at:]
        elif how == 4 and found:
            found[at] ^= 1 << rng.randint(0, 7)
        elif how == 5:
            other = rng.randint(0, len(found))
            found[at : at + n] = found[other : other + n]
        else:
            found[at : at + rng.choice([0, n])] = rng.choice(PIECES) * rng.choice([1, 1, 3])
    return bytes(found)


def of_json(rng: random.Random, data: bytes) -> bytes:
    """A changed JSON file: most often one that is still JSON."""
    if rng.random() < 0.25:
        return damaged(rng, data)
    found = dumped(changed(rng, json.loads(data)))
    if found.startswith(b"{") and rng.random() < 0.1:  # a key twice, which a dict has not
        key = rng.choice([*json.loads(data), *KEYS])
        found = b"{" + dumped(key) + b": " + dumped(odd(rng)) + b", " + found[1:]
    return found


def dumped(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def of_lines(rng: random.Random, data: bytes) -> bytes:
    """A changed file of JSON lines: of some lines the values, or their order, or the bytes."""
    if rng.random() < 0.25:
        return damaged(rng, data)
    lines = data.split(b"\n")
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(lines))
        how = rng.randint(0, 5)
        if how == 0:
            del lines[at]
            lines = lines or [b""]
        elif how == 1:
            lines.insert(at, rng.choice(lines))
        elif how == 2:
            lines[at] = damaged(rng, lines[at])
        elif lines[at].strip():
            try:
                lines[at] = of_json(rng, lines[at])
            except (ValueError, RecursionError):  # as it was damaged just now
                lines[at] = damaged(rng, lines[at])
    return b"\n".join(lines)


def of_safetensors(rng: random.Random, data: bytes) -> bytes:
    """A changed file of tensors: its header, the size of it, or the bytes behind it."""
    (n,) = struct.unpack("<Q", data[:8])
    head, body = data[8 : 8 + n], data[8 + n :]
    how = rng.randint(0, 5)
    if how == 0:
        return damaged(rng, data)
    if how == 1:
        return struct.pack("<Q", rng.choice([i for i in INTS if 0 <= i < 1 << 64])) + head + body
    if how == 2:  # numbers that are odd and in their place
        at = rng.randrange(max(1, len(body) // 4)) * 4
        bits = struct.pack("<f", rng.choice([f for f in FLOATS if abs(f) < 3.5e38 or f != f]))
        return data[: 8 + n] + body[:at] + bits + body[at + 4 :]
    head = dumped(changed(rng, json.loads(head)))
    if how == 3:
        body = damaged(rng, body)
    return struct.pack("<Q", len(head)) + head + body


def of_csv(rng: random.Random, data: bytes) -> bytes:
    """A changed table: its cells, or its bytes."""
    if rng.random() < 0.4:
        return damaged(rng, data)
    rows = changed(rng, list(csv.reader(io.StringIO(data.decode()))))
    table = io.StringIO()
    if isinstance(rows, list):
        for row in rows:
            cells = [str(c)[:6000] for c in row] if isinstance(row, list) else [str(row)[:6000]]
            with_mark = rng.choice([",", ",", ";", "\t"])
            csv.writer(table, delimiter=with_mark).writerow(cells)
    return table.getvalue().encode("utf-8", "surrogatepass")


def of_gzip(rng: random.Random, data: bytes) -> bytes:
    """A changed packed file: what is in it, or its own bytes."""
    if rng.random() < 0.5:
        return damaged(rng, data)
    return gzip.compress(damaged(rng, gzip.decompress(data)), 1)


def of_yaml(rng: random.Random, data: bytes, values: Any) -> bytes:
    """A changed file of settings: its values as JSON, which is YAML, or its lines or bytes."""
    how = rng.randint(0, 3)
    if how == 0:
        return damaged(rng, data)
    if how == 1:
        lines = data.decode().split("\n")
        at = rng.randrange(len(lines))
        key, colon, _ = lines[at].partition(":")
        odd_value = rng.choice(
            [*TEXTS, "~", "[1, ", "{a: 1}", "!!int 3", "0x10", "1_0", "2026-01-01"]
        )
        lines[at] = f"{key}{colon} {odd_value}"
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    return dumped(changed(rng, values))
