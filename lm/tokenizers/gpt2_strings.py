"""Vocabulary and merges as strings: GPT-2 and Hugging Face write each byte as a character.

entries_of(tokenizer)["\u0120the"]   # the id of b" the"
"""

import os
from collections.abc import Iterable, Mapping

from lm.tokenizers.base import TokenizerFormatError
from lm.tokenizers.bpe import BPETokenizer
from lm.tokenizers.files import short, strict


def _gpt2_characters() -> dict[int, str]:
    """The character GPT-2 writes for each byte: printable Latin-1 is itself, the other bytes are
    the characters from U+0100 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters.update({byte: chr(256 + k) for k, byte in enumerate(others)})
    return characters


_CHAR = _gpt2_characters()
_BYTE = {char: byte for byte, char in _CHAR.items()}


def from_strings(
    path: str | os.PathLike[str],
    vocab: Mapping[str, object],
    pairs: Iterable[object],
    pattern: str,
    specials: dict[str, int],
    merges_path: str | os.PathLike[str] = "",
) -> BPETokenizer:
    """The tokenizer of tokens and merges written in GPT-2's characters.

    `merges_path`: the file of the merges, where that is another.
    """
    merges_path = merges_path or path
    tokens: dict[int, bytes] = {}
    for text, i in vocab.items():
        if text in specials:
            continue
        if not isinstance(i, int) or isinstance(i, bool) or i in tokens:
            raise TokenizerFormatError(
                f"{path}: token {short(text)} has id {short(i)}: no id, or there twice"
            )
        tokens[i] = _bytes(path, text)
    merges: list[tuple[bytes, bytes]] = []
    for rank, pair in enumerate(pairs):
        parts = pair.split(" ") if isinstance(pair, str) else pair
        if not isinstance(parts, list) or [type(part) for part in parts] != [str, str]:
            raise TokenizerFormatError(
                f"{merges_path}: merge {rank} is {short(pair)}, not two tokens"
            )
        merges.append((_bytes(merges_path, parts[0]), _bytes(merges_path, parts[1])))
    return strict(path, lambda: BPETokenizer.of_vocab(tokens, merges, pattern, specials))


def _bytes(path: str | os.PathLike[str], text: str) -> bytes:
    """The bytes of a token in GPT-2's characters."""
    try:
        return bytes([_BYTE[c] for c in text])
    except KeyError as error:
        raise TokenizerFormatError(
            f"{path}: token {short(text)}: {error} stands for no byte "
            "(is this a byte-level vocabulary?)"
        ) from None


def _visible(token: bytes) -> str:
    return "".join(_CHAR[b] for b in token)


def entries_of(tokenizer: BPETokenizer) -> dict[str, int]:
    """Ids by token, in GPT-2's characters, and by special token."""
    entries = {_visible(t): i for i, t in sorted(unique_tokens(tokenizer).items())}
    both = sorted(entries.keys() & tokenizer.specials.keys())
    if both:
        raise ValueError(
            f"special token {both[0]!r} is written like an ordinary one in this format: use save"
        )
    return entries | tokenizer.specials


def merges_of(tokenizer: BPETokenizer) -> list[list[str]]:
    """The two tokens of each merge in GPT-2's characters, in order."""
    merges = tokenizer.merges
    if tokenizer.priority == "new-id":
        merges = sorted(merges, key=lambda merge: merge[2])
    visible = [_visible(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)]
    return [[visible[left], visible[right]] for left, right, _ in merges]


def unique_tokens(tokenizer: BPETokenizer) -> dict[int, bytes]:
    """The bytes of each ordinary id. Raises ValueError if two ids hold the same bytes."""
    tokens: dict[int, bytes] = {}
    id_of: dict[bytes, int] = {}
    for i in range(tokenizer.vocab_size):
        token = tokenizer.token_bytes(i)
        if not token:  # a special, or a gap
            continue
        if token in id_of:
            raise ValueError(
                f"ids {id_of[token]} and {i} hold the same bytes {token!r}, "
                "which only our own format can say: use save"
            )
        id_of[token] = i
        tokens[i] = token
    return tokens
