"""Other people's files: tiktoken ranks, GPT-2's vocab.json and merges.txt, Hugging Face
tokenizer.json.

    tokenizer = from_tiktoken("r50k_base.tiktoken", pattern="gpt2", specials={"<|endoftext|>":
    50256}) to_hf(tokenizer, "tokenizer.json"); from_hf("tokenizer.json")
"""

import base64
import binascii
import json
import os
from collections.abc import Callable
from pathlib import Path

from lm.tokenizers.base import EOT, TokenizerFormatError
from lm.tokenizers.bpe import BPETokenizer
from lm.tokenizers.files import field, parse_json, read_text, short
from lm.tokenizers.text import write_atomically

# GPT-2's pattern on what lies between digits, each of which is a chunk of its own.
GPT2_DIGITS = r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
# GPT-2 writes bytes as characters: printable Latin-1 as itself, the rest from U+0100 on.
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_CHAR = {b: chr(b) for b in _PRINTABLE}
_CHAR |= {b: chr(256 + k) for k, b in enumerate(b for b in range(256) if b not in _CHAR)}
_BYTE = {c: b for b, c in _CHAR.items()}
TIKTOKEN = "tiktoken takes a chunk that is a token whole"


def from_tiktoken(
    path: str | os.PathLike, pattern: str, specials: dict[str, int] | None = None
) -> BPETokenizer:
    """A tiktoken rank file: a line holds a token in base64 and its rank, which is its id.

    tiktoken takes a chunk that is a token whole, and in any other merges two neighbours whose bytes
    together are a token, lowest rank first: every way to cut a token in two becomes a merge. A file
    with a token that these merges do not make of its bytes is refused.
    """
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(read_text(Path(path)).splitlines(), 1):
        if not line.strip():
            continue
        try:
            word, rank = line.split()
            token, i = base64.b64decode(word, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise TokenizerFormatError(
                f"{path}: line {number} is {short(line)}, not base64 and a rank"
            ) from None
        if not token or i in tokens:
            raise TokenizerFormatError(f"{path}: line {number}: empty token, or rank {i} twice")
        tokens[i] = token
    id_of = {token: i for i, token in tokens.items()}
    if len(id_of) < len(tokens):
        raise TokenizerFormatError(f"{path}: two ranks hold the same bytes")
    merges, known = [], id_of.get
    for i, token in sorted(tokens.items()):
        for k in range(1, len(token)):
            if (a := known(token[:k])) is not None and (b := known(token[k:])) is not None:
                merges.append((a, b, i))

    def build() -> BPETokenizer:
        tokenizer = BPETokenizer(tokens, merges, pattern, specials, priority="new-id")
        return _all_reached(tokenizer, TIKTOKEN)

    return _strict(path, build)


def to_tiktoken(tokenizer: BPETokenizer, path: str | os.PathLike) -> None:
    """Write a rank file; pattern and specials go to tiktoken.Encoding by hand. ValueError if it
    cannot say it all.
    """
    tokens = _unique_tokens(_all_reached(tokenizer, TIKTOKEN))
    made = [new for _, _, new in tokenizer.merges]
    if tokenizer.priority == "order" and made != sorted(made):
        raise ValueError(
            "tiktoken ranks are ids, and here the ids do not follow the merges: use to_hf"
        )
    lines = [f"{base64.b64encode(token).decode()} {i}\n" for i, token in sorted(tokens.items())]
    write_atomically(Path(path), "".join(lines).encode())


def from_gpt2(
    vocab: str | os.PathLike,
    merges: str | os.PathLike,
    pattern: str = "gpt2",
    specials: tuple[str, ...] = ("<|endoftext|>",),
) -> BPETokenizer:
    """GPT-2's own two files: vocab.json (token to id) and merges.txt (a version line, then
    pairs).
    """
    entries = _strict(vocab, lambda: parse_json(read_text(Path(vocab))))
    lines = _strict(merges, lambda: read_text(Path(merges))).split("\n")
    pairs = [line for line in lines if line.strip() and not line.startswith("#version")]
    return _from_strings(vocab, entries, pairs, pattern, [s for s in specials if s in entries], {})


def to_gpt2(tokenizer: BPETokenizer, vocab: str | os.PathLike, merges: str | os.PathLike) -> None:
    """Write GPT-2's two files; the pattern is not part of them."""
    body = json.dumps(_entries(tokenizer), ensure_ascii=False).encode()
    write_atomically(Path(vocab), body)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in _string_merges(tokenizer))]
    write_atomically(Path(merges), "\n".join([*lines, ""]).encode())


def from_hf_folder(folder: Path) -> BPETokenizer:
    """The tokenizer of a model that transformers saved, with the end token that its files name.

    Reads tokenizer.json, else GPT-2's vocab.json and merges.txt. Raises FileNotFoundError, or
    TokenizerFormatError.
    """
    if (folder / "tokenizer.json").is_file():
        tokenizer = from_hf(folder / "tokenizer.json")
    elif (folder / "vocab.json").is_file():
        tokenizer = from_gpt2(folder / "vocab.json", folder / "merges.txt")
    else:
        raise FileNotFoundError(f"{folder} has neither tokenizer.json nor vocab.json")
    text_of = {i: text for text, i in tokenizer.specials.items()}
    named = []
    for file, key in (("config.json", "eos_token_id"), ("tokenizer_config.json", "eos_token")):
        end = _value(folder / file, key)
        end = end[0] if isinstance(end, list) and end else end  # the first ends documents
        end = end.get("content") if isinstance(end, dict) else end
        named.append(text_of.get(end, end) if isinstance(end, int) else end)
    found = [e for e in (*named, EOT) if isinstance(e, str) and e in tokenizer.specials]
    if not found:
        raise TokenizerFormatError(
            f"{folder}: which token ends a document? Neither eos_token_id in config.json nor "
            f"eos_token in tokenizer_config.json is one of its special tokens, nor is there {EOT}"
        )
    tokenizer.eot = found[0]
    return tokenizer


def _value(path: Path, key: str) -> object:
    """One value of a JSON file; None if either is not there."""
    return _strict(path, lambda: parse_json(read_text(path)).get(key)) if path.is_file() else None


def from_hf(path: str | os.PathLike) -> BPETokenizer:
    """A Hugging Face tokenizer.json of byte-level BPE; what we cannot do exactly is refused by
    name.
    """
    state = _strict(path, lambda: parse_json(read_text(Path(path))))
    return _strict(path, lambda: _read_hf(path, state))


def _read_hf(path: str | os.PathLike, state: dict) -> BPETokenizer:
    model = field(state, "model", dict)
    if model.get("type", "BPE") != "BPE":
        raise TokenizerFormatError(f"the model is {short(model['type'])}, not BPE")
    for key in ("byte_fallback", "fuse_unk", "dropout", "unk_token"):
        if model.get(key):
            raise TokenizerFormatError(
                f"model.{key} is {short(model[key])}, which is not supported"
            )
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise TokenizerFormatError(f"model.{key} is set: this is no byte-level BPE")
    if state.get("normalizer"):
        raise TokenizerFormatError("a normalizer changes the text, which is not supported")
    pattern = _hf_pattern(state.get("pre_tokenizer"))
    added = {}
    for entry in state.get("added_tokens") or []:
        content = field(entry, "content", str)
        if not entry.get("special", True):
            raise TokenizerFormatError(
                f"added token {short(content)} is not special, so it is cut out of ordinary text, "
                "which is not supported"
            )
        for key in ("lstrip", "rstrip", "single_word"):
            if entry.get(key):
                raise TokenizerFormatError(
                    f"added token {short(content)} has {key}, which is not supported"
                )
        added[content] = field(entry, "id", int)
    pairs = field(model, "merges", list)
    tokenizer = _from_strings(path, field(model, "vocab", dict), pairs, pattern, list(added), added)
    if model.get("ignore_merges"):  # a chunk that is a token is taken whole: mostly the same
        return _all_reached(tokenizer, "model.ignore_merges is true")
    return tokenizer


def _all_reached(tokenizer: BPETokenizer, rule: str) -> BPETokenizer:
    """The tokenizer, if its merges make each token of its bytes; else ValueError: `rule` is not
    ours.
    """
    if missed := tokenizer.unreached():
        token = tokenizer.token_bytes(missed[0])
        raise ValueError(
            f"{rule}, and token {missed[0]} {token!r} is not what the merges make of its bytes, "
            "which is not supported"
        )
    return tokenizer


def to_hf(tokenizer: BPETokenizer, path: str | os.PathLike) -> None:
    """Write a tokenizer.json that the tokenizers library reads, with the same ids for ordinary
    text.
    """
    vocab = _entries(tokenizer)  # specials too: one with an id of its own choice must be there
    added = [
        {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for text, i in sorted(tokenizer.specials.items(), key=lambda item: item[1])
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    split = {"type": "Split", "pattern": {"Regex": tokenizer.splitter.pattern}}
    split |= {"behavior": "Isolated", "invert": False}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False}
    model |= {"ignore_merges": False, "vocab": vocab, "merges": _string_merges(tokenizer)}
    state = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": model,
    }
    write_atomically(Path(path), json.dumps(state, ensure_ascii=False, indent=1).encode())


def _hf_pattern(pre_tokenizer: object) -> str:
    steps = [pre_tokenizer]
    if isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Sequence":
        steps = pre_tokenizer.get("pretokenizers")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise TokenizerFormatError(f"the pre_tokenizer {short(pre_tokenizer)} is not supported")
    kinds = [step.get("type") for step in steps]
    last = steps[-1] if steps else {}
    if kinds[-1:] != ["ByteLevel"] or last.get("add_prefix_space"):
        raise TokenizerFormatError(
            "the pre_tokenizer must end in ByteLevel without add_prefix_space"
        )
    if kinds == ["ByteLevel"] and last.get("use_regex", True):
        return "gpt2"
    single = kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits")
    if single and last.get("use_regex", True):
        return GPT2_DIGITS
    if kinds == ["Split", "ByteLevel"] and not last.get("use_regex", True):
        pattern = steps[0].get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        if (
            isinstance(regex, str)
            and steps[0].get("behavior") == "Isolated"
            and not steps[0].get("invert")
        ):
            return regex
    raise TokenizerFormatError(
        f"the pre_tokenizers {short(kinds)} with these settings are not supported"
    )


def _from_strings(
    path: str | os.PathLike,
    vocab: dict,
    pairs: list,
    pattern: str,
    specials: list[str],
    added: dict[str, int],
) -> BPETokenizer:
    """Of tokens and merges written in GPT-2's characters."""
    special_ids = {text: vocab.get(text, added.get(text)) for text in specials}
    tokens: dict[int, bytes] = {}
    for text, i in vocab.items():
        if text in special_ids:
            continue
        if not isinstance(i, int) or isinstance(i, bool) or i in tokens:
            raise TokenizerFormatError(
                f"{path}: token {short(text)} has id {short(i)}: no id, or there twice"
            )
        tokens[i] = _bytes(path, text)
    split = []
    for rank, pair in enumerate(pairs):
        parts = pair.split(" ") if isinstance(pair, str) else pair
        if not isinstance(parts, list) or [type(part) for part in parts] != [str, str]:
            raise TokenizerFormatError(f"{path}: merge {rank} is {short(pair)}, not two tokens")
        split.append((_bytes(path, parts[0]), _bytes(path, parts[1])))
    return _strict(path, lambda: BPETokenizer.of_vocab(tokens, split, pattern, special_ids))


def _bytes(path: str | os.PathLike, text: str) -> bytes:
    try:
        return bytes([_BYTE[c] for c in text])
    except KeyError as error:
        raise TokenizerFormatError(
            f"{path}: token {short(text)}: {error} stands for no byte "
            "(is this a byte-level vocabulary?)"
        ) from None


def _visible(token: bytes) -> str:
    return "".join(_CHAR[b] for b in token)


def _entries(tokenizer: BPETokenizer) -> dict[str, int]:
    """Ids by token, in GPT-2's characters, and by special token."""
    entries = {_visible(t): i for i, t in sorted(_unique_tokens(tokenizer).items())}
    if both := sorted(entries.keys() & tokenizer.specials.keys()):
        raise ValueError(
            f"special token {both[0]!r} is written like an ordinary one in this format: use save"
        )
    return entries | tokenizer.specials


def _string_merges(tokenizer: BPETokenizer) -> list[list[str]]:
    merges = tokenizer.merges
    if tokenizer.priority == "new-id":
        merges = sorted(merges, key=lambda merge: merge[2])
    return [
        [_visible(tokenizer.token_bytes(left)), _visible(tokenizer.token_bytes(right))]
        for left, right, _ in merges
    ]


def _unique_tokens(tokenizer: BPETokenizer) -> dict[int, bytes]:
    tokens = {i: t for i in range(tokenizer.vocab_size) if (t := tokenizer.token_bytes(i))}
    seen: dict[bytes, int] = {}
    for i, token in tokens.items():
        if seen.setdefault(token, i) != i:
            raise ValueError(
                f"ids {seen[token]} and {i} hold the same bytes {token!r}, "
                "which only our own format can say: use save"
            )
    return tokens


def _strict(path: str | os.PathLike, read: Callable):
    """What `read` gives; its ValueErrors become errors of the format and name the file."""
    try:
        return read()
    except ValueError as error:
        message = str(error)
        if not message.startswith(str(path)):
            message = f"{path}: {message}"
        raise TokenizerFormatError(message) from None
