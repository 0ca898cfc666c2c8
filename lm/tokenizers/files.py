"""Read a tokenizer file, which is data and never code: sizes, depth, types and ids are checked.

load("tokenizer.json")   # TokenizerFormatError, one line, if anything is wrong with it
"""

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import regex

from lm.system import foreign
from lm.system.errors import DamagedError, PointerError
from lm.tokenizers.base import (
    FORMAT,
    MAX_FILE_BYTES,
    MAX_VOCAB,
    VERSION,
    Tokenizer,
    TokenizerFormatError,
)
from lm.tokenizers.bpe import BPETokenizer
from lm.tokenizers.byte import ByteTokenizer
from lm.tokenizers.char import CharTokenizer

MAX_MESSAGE = 500  # characters

T = TypeVar("T")


def load(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a file that `save` wrote. Raises FileNotFoundError, or TokenizerFormatError
    if anything is wrong with the content.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no tokenizer file {path}")
    return strict(path, lambda: from_json(read_text(path)))


def read_text(path: Path) -> str:
    """The text of a plain file. Raises TokenizerFormatError if it cannot be one of a tokenizer."""
    try:
        return foreign.read_text(path, MAX_FILE_BYTES, links=True)
    except (DamagedError, PointerError) as error:
        raise TokenizerFormatError(str(error)) from None


def strict(path: str | os.PathLike[str], read: Callable[[], T]) -> T:
    """The result of `read`; its ValueErrors become TokenizerFormatErrors that name the file."""
    try:
        return read()
    except ValueError as error:
        message = str(error)
        if not message.startswith(str(path)):
            message = f"{path}: {message}"
        if len(message) > MAX_MESSAGE:  # it repeats what a stranger wrote, of any length
            message = f"{message[:MAX_MESSAGE]}..."
        raise TokenizerFormatError(message) from None


def from_json(text: str) -> Tokenizer:
    """The tokenizer that `to_json` described. Raises TokenizerFormatError."""
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
    extra = sorted(state.keys() - keys - _COMMON_KEYS)
    if extra:
        raise TokenizerFormatError(f"unknown key {short(extra[0])}")
    try:
        tokenizer = build(state, _specials(state))
        if "eot" in state:
            tokenizer.eot = field(state, "eot", str)
            _ = tokenizer.eot_id  # raises if it is no special
        return tokenizer
    except TokenizerFormatError:
        raise
    except ValueError as error:
        raise TokenizerFormatError(str(error)) from None


def parse_json(text: str) -> dict[str, object]:
    """The JSON object of the text. Raises TokenizerFormatError also for NaN, a key that is there
    twice, and numbers or nesting without end.
    """
    try:
        state = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
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


def _refuse_constant(constant: str) -> NoReturn:
    raise TokenizerFormatError(f"not JSON: {constant}")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    state: dict[str, object] = {}
    for key, value in pairs:
        if key in state:
            raise TokenizerFormatError(f"the key {short(key)} is there twice")
        state[key] = value
    return state


def field(state: dict[str, object], key: str, kind: type[T]) -> T:
    """state[key]. Raises TokenizerFormatError if it is missing or not of that type."""
    if not isinstance(state, dict):
        raise TokenizerFormatError(f'{short(state)} is no object, so the key "{key}" is missing')
    if key not in state:
        raise TokenizerFormatError(f'the key "{key}" is missing')
    value = state[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise TokenizerFormatError(f'"{key}" is {short(value)}, not a {kind.__name__}')
    return value


def short(value: object, limit: int = 60) -> str:
    """The value for an error message: one line, cut."""
    text = ascii(value)
    return text if len(text) <= limit else text[:limit] + "..."


def _specials(state: dict[str, object]) -> dict[str, int]:
    """Ids of the special tokens by their text."""
    specials: dict[str, int] = field(state, "specials", dict)
    for text, i in specials.items():
        if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < MAX_VOCAB:
            raise TokenizerFormatError(
                f"special token {short(text)} has the id {short(i)}, which is none"
            )
    if len(set(specials.values())) < len(specials):
        raise TokenizerFormatError("two special tokens have the same id")
    return specials


def _in_order_from(first: int, specials: dict[str, int]) -> list[str]:
    """The special tokens in the order of their ids, which must be first, first + 1, ..."""
    ordered = sorted(specials, key=specials.__getitem__)
    if [specials[text] for text in ordered] != list(range(first, first + len(ordered))):
        raise TokenizerFormatError(
            f"the special tokens must have the ids {first}..{first + len(ordered) - 1}"
        )
    return ordered


def _char(state: dict[str, object], specials: dict[str, int]) -> CharTokenizer:
    chars = field(state, "chars", str)
    if "".join(sorted(set(chars))) != chars:
        raise TokenizerFormatError('"chars" must be sorted, each character once')
    return CharTokenizer(chars, _in_order_from(len(chars), specials))


def _byte(state: dict[str, object], specials: dict[str, int]) -> ByteTokenizer:
    return ByteTokenizer(_in_order_from(256, specials))


def _bpe(state: dict[str, object], specials: dict[str, int]) -> BPETokenizer:
    tokens = _tokens(field(state, "tokens", list), set(specials.values()))
    merges = field(state, "merges", list)
    for rank, merge in enumerate(merges):
        if not isinstance(merge, list) or [type(part) for part in merge] != [int, int, int]:
            raise TokenizerFormatError(f"merge {rank} is {short(merge)}, not three ids")
    tokenizer = BPETokenizer(
        tokens,
        merges,
        pattern=field(state, "pattern", str),
        specials=specials,
        tie_break=field(state, "tie_break", str),
        priority=field(state, "priority", str),
    )
    version = field(state, "regex", str)
    if version != regex.__version__:
        warnings.warn(
            f"this tokenizer was made with regex {version} and runs with {regex.__version__}: "
            "characters that only one of them knows may get other ids",
            stacklevel=2,
        )
    return tokenizer


def _tokens(entries: list[object], special_ids: set[int]) -> dict[int, bytes]:
    """The bytes of each ordinary id, of a list with the bytes of every id in hex: those of special
    ids are empty, and null is a gap in the ids.
    """
    if len(entries) > MAX_VOCAB:
        raise TokenizerFormatError(f"{len(entries)} tokens are more than {MAX_VOCAB}")
    tokens: dict[int, bytes] = {}
    for i, entry in enumerate(entries):
        if entry is None and i not in special_ids:
            continue
        try:
            token = bytes.fromhex(entry) if isinstance(entry, str) else None
        except ValueError:
            token = None
        if token is None:
            raise TokenizerFormatError(f"token {i} is {short(entry)}, not bytes in hex")
        if i in special_ids and token:
            raise TokenizerFormatError(f"token {i} belongs to a special token too")
        if i not in special_ids and not token:
            raise TokenizerFormatError(f"token {i} is empty")
        if token:
            tokens[i] = token
    return tokens


_COMMON_KEYS = {"format", "version", "name", "specials", "eot"}
_Builder = Callable[[dict[str, object], dict[str, int]], Tokenizer]
# By name: what builds the tokenizer, and the keys of its content.
_BUILDERS: dict[str, tuple[_Builder, set[str]]] = {
    "char": (_char, {"chars"}),
    "byte": (_byte, set()),
    "bpe": (_bpe, {"pattern", "regex", "tie_break", "priority", "tokens", "merges"}),
}
