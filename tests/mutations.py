"""Damaged files: the same seed makes the same mutation of the same bytes, on every machine.

Two families: bytes that a disk or a copy got wrong, and values that a person or a program did. A
mutation is a function of a seed and of the file's bytes alone, so that a failure can be repeated.
"""

import copy
import io
import json
import random
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

COUNT = 200  # of each kind of file


def of_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flips, deletes, inserts, duplicates or cuts bytes."""
    kind = rng.choice(
        ("flip", "flips", "delete", "insert", "duplicate", "truncate", "zeros", "swap")
    )
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 1, 2, 7, 64))
    if kind in ("flip", "flips"):
        out = bytearray(data)
        for _ in range(1 if kind == "flip" else 5):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        return bytes(out)
    if kind == "delete":
        return data[:at] + data[at + size :]
    if kind == "insert":
        return data[:at] + rng.randbytes(size) + data[at:]
    if kind == "duplicate":
        return data[:at] + data[max(0, at - size) : at] + data[at:]
    if kind == "truncate":
        return data[:at]
    if kind == "zeros":
        return data[:at] + b"\0" * size + data[at + size :]
    out = bytearray(data)
    at, other = min(at, len(data) - 1), rng.randrange(len(data))
    out[at], out[other] = out[other], out[at]
    return bytes(out)


VALUES = (
    None, True, False, 0, -1, 1, 10**30, 10**400, -(10**18), 1.5, -0.0, 1e308, "", "x", "\0",
    "../../etc", "\ud800", "é" * 300, [], {}, [[]], [None], {"": 0}, [1, "a"], "1", [10**9] * 3,
)  # fmt: skip
WORDS = ("NaN", "Infinity", "-Infinity", "1e999", "[" * 5000, "nul", "01", "'x'", "0x10", "")


def of_json(rng: random.Random, data: bytes) -> bytes:
    """Puts another value, key or word into a JSON object."""
    found = json.loads(data)
    kind = rng.choice(
        ("value", "value", "value", "word", "drop", "rename", "twice", "whole", "move")
    )
    if kind == "whole":
        other = rng.choice((*VALUES, "NaN"))
        return rng.choice((b"", b"\xff\xfe", b"\0" * 40, json.dumps(other).encode(), data + data))
    holder, key = rng.choice(list(_places(found)))
    if kind == "value":
        holder[key] = rng.choice(VALUES)
    elif kind == "drop":
        del holder[key]
    elif kind == "move":
        found[f"{key}_"] = copy.deepcopy(holder[key])
    elif kind == "rename" and isinstance(holder, dict):
        holder[rng.choice((str(key) + "x", str(key).upper(), "", "a.b"))] = holder.pop(key)
    elif kind == "twice" and isinstance(holder, dict):
        text = json.dumps(found)
        return text.replace(
            f'"{key}":', f'"{key}": {json.dumps(rng.choice(VALUES))}, "{key}":'
        ).encode()
    else:
        holder[key] = "WORD"
        return json.dumps(found).replace('"WORD"', rng.choice(WORDS)).encode()
    return json.dumps(found).encode()


def _places(found: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every value."""
    for key, value in found.items() if isinstance(found, dict) else enumerate(found):
        yield found, key
        if isinstance(value, dict | list):
            yield from _places(value)


def of_lines(rng: random.Random, data: bytes) -> bytes:
    """Damages one line of a file of JSON lines, or their order."""
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    kind = rng.choice(("json", "bytes", "drop", "twice", "swap", "cut", "blank"))
    if kind == "json":
        lines[at] = of_json(rng, lines[at]).replace(b"\n", b"") + b"\n"
    elif kind == "bytes":
        lines[at] = of_bytes(rng, lines[at])
    elif kind == "drop":
        del lines[at]
    elif kind == "twice":
        lines.insert(at, lines[at])
    elif kind == "swap":
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "cut":
        lines[at] = lines[at][: len(lines[at]) // 2]
    else:
        lines.insert(at, rng.choice((b"\n", b"null\n", b"[]\n", b"{}\n", b"\xff\n", b"\x00\n")))
    return b"".join(lines)


def of_npz(rng: random.Random, data: bytes) -> bytes:
    """Damages the archive, an array's header, or an array."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    kind = rng.choice(("array", "array", "array", "member", "drop", "lie", "bomb", "object"))
    name = rng.choice(sorted(arrays))
    if kind == "member":  # a header or bytes that the archive itself finds right
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {n: archive.read(n) for n in archive.namelist()}
        members[f"{name}.npy"] = of_bytes(rng, members[f"{name}.npy"])
        return archived(members)
    if kind == "lie":  # in the directory at the end: sizes, methods, checks, offsets
        start = data.rindex(b"PK\x01\x02")
        out = bytearray(data)
        out[start + 4 + rng.randrange(42)] ^= 1 << rng.randrange(8)
        return bytes(out)
    if kind == "bomb":
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**12},), }}"
        npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        return archived({f"{name}.npy": npy + bytes(1 << 22)}, zipfile.ZIP_DEFLATED)
    if kind == "object":
        file = io.BytesIO()
        np.savez(file, **(arrays | {name: np.array([{}, exec], object)}))
        return file.getvalue()
    if kind == "drop":
        del arrays[name]
    else:
        arrays[name] = _another(rng, arrays[name])
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def archived(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive whose own checks are right."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _another(rng: random.Random, x: np.ndarray) -> np.ndarray:
    """An array with another value, shape or type."""
    kind = rng.choice(("value", "value", "shape", "type", "nan", "inf", "empty", "negative"))
    if kind == "type":
        other = rng.choice((np.complex128, np.str_, np.bool_, "M8[s]", np.float16))
        return np.resize(np.zeros(1), x.shape).astype(other)
    if kind == "shape":
        return rng.choice((x[None], x.ravel()[:-1], np.stack([x, x]), x.ravel()))
    if kind == "empty":
        return np.zeros((0, *x.shape[1:]), x.dtype)
    if x.dtype.kind not in "fiu" or x.size == 0:
        return np.array("{" if x.dtype.kind == "U" else 0)
    x = x.astype(np.float64) if kind in ("nan", "inf") else x.copy()
    flat = x.reshape(-1)
    at = rng.randrange(x.size)
    changes = {"nan": np.nan, "inf": np.inf, "negative": -7.0}
    flat[at] = changes.get(kind, flat[at] * 1.5 + 3)
    return x


KINDS = {
    "config": (of_bytes, of_json, of_json),
    "lines": (of_bytes, of_lines, of_lines),
    "npz": (of_bytes, of_npz, of_npz),
}


def mutated(kind: str, data: bytes, seed: int) -> bytes:
    """The mutation of a file that a seed makes.

    Args:
      kind: of the file, a name of `KINDS`.
      data: the whole file.
      seed: any integer.

    Returns:
      Other bytes than `data`.
    """
    rng = random.Random(f"{kind} {seed}")
    while True:
        found = rng.choice(KINDS[kind])(rng, data)
        if found != data:
            return found
