"""Read a tokenizer file, which is data and never code: sizes, depth, types and ids are checked.

load("tokenizer.json")   # TokenizerFormatError, one line, if anything is wrong with it
"""

import json
import os
import warnings
from pathlib import Path

import regex

from lm.tokenizers.base import FORMAT, MAX_VOCAB, VERSION, Tokenizer, TokenizerFormatError
from lm.tokenizers.bpe import BPETokenizer
from lm.tokenizers.byte import ByteTokenizer
from lm.tokenizers.char import CharTokenizer

MAX_FILE_BYTES = 256 << 20


def load(path: str | os.PathLike) -> Tokenizer:
    """The tokenizer of a file that `save` wrote. Raises TokenizerFormatError, or
    FileNotFoundError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no tokenizer file {path}")
    try:
        return from_json(read_text(path))
    except TokenizerFormatError as error:
        raise TokenizerFormatError(f"{path}: {error}") from None


def read_text(path: Path) -> str:
    """The file as text, unless it is too large or no UTF-8."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise TokenizerFormatError(
            f"{size} bytes is more than a tokenizer file may have ({MAX_FILE_BYTES})"
        )
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerFormatError(f"not UTF-8 at byte {error.start}") from None


def from_json(text: str) -> Tokenizer:
    """The tokenizer that `to_json` described."""
    state = parse_json(text)
    if state.get("format") != FORMAT:
        raise TokenizerFormatError(
            f'no tokenizer file: "format" is {short(state.get("format"))}, not "{FORMAT}"'
        )
    if state.get("version") != VERSION or isinstance(state["version"], bool):
        raise TokenizerFormatError(
            f"format version {short(state.get('version'))}, and only {VERSION} can be read"
        )
    name = field(state, "name", str)
    if name not in _BUILDERS:
        raise TokenizerFormatError(f'"name" is {short(name)}, not one of {", ".join(_BUILDERS)}')
    build, keys = _BUILDERS[name]
    if extra := sorted(set(state) - keys - {"format", "version", "name", "specials", "eot"}):
        raise TokenizerFormatError(f"unknown key {short(extra[0])}")
    try:
        tokenizer = build(state, _specials(state))
        if "eot" in state:
            tokenizer.eot = field(state, "eot", str)
            _ = tokenizer.eot_id  # it must be a special
        return tokenizer
    except TokenizerFormatError:
        raise
    except ValueError as error:
        raise TokenizerFormatError(str(error)) from None


def parse_json(text: str) -> dict:
    """A JSON object, strictly: no NaN, no double keys, no endless numbers or depth."""

    def refuse(constant: str):
        raise TokenizerFormatError(f"not JSON: {constant}")

    def unique(pairs: list[tuple[str, object]]) -> dict:
        out = dict(pairs)
        if len(out) < len(pairs):
            seen: set[str] = set()
            double = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise TokenizerFormatError(f"the key {short(double)} is there twice")
        return out

    try:
        state = json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except RecursionError:
        raise TokenizerFormatError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise TokenizerFormatError(f"not JSON: {error}") from None
    except TokenizerFormatError:
        raise
    except ValueError:  # an integer of more digits than Python converts
        raise TokenizerFormatError("a number has too many digits") from None
    if not isinstance(state, dict):
        raise TokenizerFormatError(f"the file holds a {type(state).__name__}, not an object")
    return state


def field(state: dict, key: str, kind: type):
    """state[key], which must be there and of that type."""
    if key not in state:
        raise TokenizerFormatError(f'the key "{key}" is missing')
    if not isinstance(state[key], kind) or (isinstance(state[key], bool) and kind is int):
        raise TokenizerFormatError(f'"{key}" is {short(state[key])}, not a {kind.__name__}')
    return state[key]


def short(value: object, limit: int = 60) -> str:
    """The value for an error message: one line, cut."""
    text = ascii(value)
    return text if len(text) <= limit else text[:limit] + "..."


def _specials(state: dict) -> dict[str, int]:
    specials = field(state, "specials", dict)
    for text, i in specials.items():
        if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < MAX_VOCAB:
            raise TokenizerFormatError(
                f"special token {short(text)} has the id {short(i)}, which is none"
            )
    if len(set(specials.values())) < len(specials):
        raise TokenizerFormatError("two special tokens have the same id")
    return specials


def _last_ids(specials: dict[str, int], first: int) -> list[str]:
    ordered = sorted(specials, key=specials.get)
    if [specials[text] for text in ordered] != list(range(first, first + len(ordered))):
        raise TokenizerFormatError(
            f"the special tokens must have the ids {first}..{first + len(ordered) - 1}"
        )
    return ordered


def _char(state: dict, specials: dict[str, int]) -> CharTokenizer:
    chars = field(state, "chars", str)
    if "".join(sorted(set(chars))) != chars:
        raise TokenizerFormatError('"chars" must be sorted, each character once')
    return CharTokenizer(chars, _last_ids(specials, len(chars)))


def _byte(state: dict, specials: dict[str, int]) -> ByteTokenizer:
    return ByteTokenizer(_last_ids(specials, 256))


def _bpe(state: dict, specials: dict[str, int]) -> BPETokenizer:
    tokens = {}
    special_ids = set(specials.values())
    entries = field(state, "tokens", list)
    if len(entries) > MAX_VOCAB:
        raise TokenizerFormatError(f"{len(entries)} tokens are more than {MAX_VOCAB}")
    for i, entry in enumerate(entries):
        if entry is None and i not in special_ids:  # a gap in the ids
            continue
        try:
            token = bytes.fromhex(entry)
        except (TypeError, ValueError):
            raise TokenizerFormatError(f"token {i} is {short(entry)}, not bytes in hex") from None
        if bool(token) == (i in special_ids):
            what = "belongs to a special token too" if token else "is empty"
            raise TokenizerFormatError(f"token {i} {what}")
        if token:
            tokens[i] = token
    merges = field(state, "merges", list)
    for rank, merge in enumerate(merges):
        if not isinstance(merge, list) or [type(part) for part in merge] != [int, int, int]:
            raise TokenizerFormatError(f"merge {rank} is {short(merge)}, not three ids")
    settings = {key: field(state, key, str) for key in ("pattern", "tie_break", "priority")}
    tokenizer = BPETokenizer(tokens, merges, specials=specials, **settings)
    if (version := field(state, "regex", str)) != regex.__version__:
        warnings.warn(
            f"this tokenizer was made with regex {version} and runs with {regex.__version__}: "
            "characters that only one of them knows may get other ids",
            stacklevel=2,
        )
    return tokenizer


_BUILDERS = {
    "char": (_char, {"chars"}),
    "byte": (_byte, set()),
    "bpe": (_bpe, {"pattern", "regex", "tie_break", "priority", "tokens", "merges"}),
}
