"""Other people's files: tiktoken ranks, GPT-2's vocab.json and merges.txt, Hugging Face
tokenizer.json.

    tokenizer = from_tiktoken("r50k_base.tiktoken", "gpt2", {"<|endoftext|>": 50256})
    to_hf(tokenizer, "tokenizer.json"); from_hf("tokenizer.json")
"""

import base64
import binascii
import json
import os
from pathlib import Path
from typing import Any

from lm.tokenizers.base import EOT, TokenizerFormatError
from lm.tokenizers.bpe import BPETokenizer
from lm.tokenizers.files import field, parse_json, read_text, short, strict
from lm.tokenizers.gpt2_strings import entries_of, from_strings, merges_of, unique_tokens
from lm.tokenizers.merge import Merge
from lm.tokenizers.text import write_atomically

# GPT-2's pattern on what lies between digits, each of which is a chunk of its own.
GPT2_DIGITS = r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
TIKTOKEN_RULE = "tiktoken takes a chunk that is a token whole"


def from_tiktoken(
    path: str | os.PathLike[str], pattern: str, specials: dict[str, int] | None = None
) -> BPETokenizer:
    """A tiktoken rank file: a line holds a token in base64 and its rank, which is its id.

    tiktoken takes a chunk that is a token whole, and in any other merges two neighbours whose bytes
    together are a token, lowest rank first: every way to cut a token in two becomes a merge. A file
    with a token that these merges do not make of its bytes is refused.
    """
    tokens = _read_ranks(path)
    id_of = {token: i for i, token in tokens.items()}
    if len(id_of) < len(tokens):
        raise TokenizerFormatError(f"{path}: two ranks hold the same bytes")
    merges: list[Merge] = []
    for i, token in sorted(tokens.items()):
        for k in range(1, len(token)):
            left = id_of.get(token[:k])
            right = id_of.get(token[k:])
            if left is not None and right is not None:
                merges.append((left, right, i))

    def build() -> BPETokenizer:
        tokenizer = BPETokenizer(tokens, merges, pattern, specials, priority="new-id")
        return _all_reached(tokenizer, TIKTOKEN_RULE)

    return strict(path, build)


def _read_ranks(path: str | os.PathLike[str]) -> dict[int, bytes]:
    """The bytes of each rank of a tiktoken file."""
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(read_text(Path(path)).splitlines(), 1):
        if not line.strip():
            continue
        try:
            word, rank = line.split()
            token = base64.b64decode(word, validate=True)
            i = int(rank)
        except (ValueError, binascii.Error):
            raise TokenizerFormatError(
                f"{path}: line {number} is {short(line)}, not base64 and a rank"
            ) from None
        if not token or i in tokens:
            raise TokenizerFormatError(f"{path}: line {number}: empty token, or rank {i} twice")
        tokens[i] = token
    return tokens


def to_tiktoken(tokenizer: BPETokenizer, path: str | os.PathLike[str]) -> None:
    """Write a rank file; pattern and specials go to tiktoken.Encoding by hand. Raises ValueError
    for a tokenizer that ranks cannot describe.
    """
    _all_reached(tokenizer, TIKTOKEN_RULE)
    tokens = unique_tokens(tokenizer)
    made = [new for _, _, new in tokenizer.merges]
    if tokenizer.priority == "order" and made != sorted(made):
        raise ValueError(
            "tiktoken ranks are ids, and here the ids do not follow the merges: use to_hf"
        )
    lines = [f"{base64.b64encode(token).decode()} {i}\n" for i, token in sorted(tokens.items())]
    write_atomically(Path(path), "".join(lines).encode())


def from_gpt2(
    vocab: str | os.PathLike[str],
    merges: str | os.PathLike[str],
    pattern: str = "gpt2",
    specials: tuple[str, ...] = (EOT,),
) -> BPETokenizer:
    """The tokenizer of GPT-2's own two files: vocab.json (token to id) and merges.txt (a version
    line, then pairs).
    """
    entries = strict(vocab, lambda: parse_json(read_text(Path(vocab))))
    lines = strict(merges, lambda: read_text(Path(merges))).split("\n")
    pairs = [line for line in lines if line.strip() and not line.startswith("#version")]
    found = [special for special in specials if special in entries]
    special_ids = strict(vocab, lambda: {text: field(entries, text, int) for text in found})
    return from_strings(vocab, entries, pairs, pattern, special_ids, merges)


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
    ends = (
        _end_token(tokenizer, folder / "config.json", "eos_token_id"),
        _end_token(tokenizer, folder / "tokenizer_config.json", "eos_token"),
        EOT,
    )
    found = [end for end in ends if end in tokenizer.specials]
    if not found:
        raise TokenizerFormatError(
            f"{folder}: which token ends a document? Neither eos_token_id in config.json nor "
            f"eos_token in tokenizer_config.json is one of its special tokens, nor is there {EOT}"
        )
    tokenizer.eot = found[0]
    return tokenizer


def _end_token(tokenizer: BPETokenizer, path: Path, key: str) -> str:
    """The special token that a model's file names under `key` as the end of a document, else ""."""
    if not path.is_file():
        return ""
    end = strict(path, lambda: parse_json(read_text(path)).get(key))
    if isinstance(end, list) and end:
        end = end[0]  # the first of several ends documents
    if isinstance(end, dict):
        end = end.get("content")
    for text, i in tokenizer.specials.items():
        if i == end:
            return text
    return end if isinstance(end, str) else ""


def from_hf(path: str | os.PathLike[str]) -> BPETokenizer:
    """The tokenizer of a Hugging Face tokenizer.json of byte-level BPE.

    Raises TokenizerFormatError, which names it, for what we cannot do exactly.
    """
    state = strict(path, lambda: parse_json(read_text(Path(path))))
    return strict(path, lambda: _read_hf(path, state))


def _read_hf(path: str | os.PathLike[str], state: dict[str, object]) -> BPETokenizer:
    model: dict[str, object] = field(state, "model", dict)
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
    vocab = field(model, "vocab", dict)
    pairs = field(model, "merges", list)
    added: list[dict[str, object]] = []
    if state.get("added_tokens"):
        added = field(state, "added_tokens", list)
    special_ids = {text: vocab.get(text, i) for text, i in _added_tokens(added).items()}
    tokenizer = from_strings(path, vocab, pairs, pattern, special_ids)
    if model.get("ignore_merges"):  # a chunk that is a token is taken whole: mostly the same
        return _all_reached(tokenizer, "model.ignore_merges is true")
    return tokenizer


def _added_tokens(entries: list[dict[str, object]]) -> dict[str, int]:
    """Ids of the special tokens that a tokenizer.json adds to its vocabulary."""
    added: dict[str, int] = {}
    for entry in entries:
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
    return added


def _all_reached(tokenizer: BPETokenizer, rule: str) -> BPETokenizer:
    """The tokenizer, for a format whose `rule` is not ours. Raises ValueError unless it makes no
    difference, because the merges make each token of its bytes.
    """
    missed = tokenizer.unreached()
    if missed:
        token = tokenizer.token_bytes(missed[0])
        raise ValueError(
            f"{rule}, and token {missed[0]} {token!r} is not what the merges make of its bytes, "
            "which is not supported"
        )
    return tokenizer


def to_hf(tokenizer: BPETokenizer, path: str | os.PathLike[str]) -> None:
    """Write a tokenizer.json that the tokenizers library reads, with the same ids for ordinary
    text. Raises ValueError for a tokenizer it cannot describe.
    """
    write_atomically(
        Path(path), json.dumps(hf_state(tokenizer), ensure_ascii=False, indent=1).encode()
    )


def hf_state(tokenizer: BPETokenizer) -> dict[str, Any]:
    """What a tokenizer.json says of the tokenizer. Raises ValueError for one it cannot describe."""
    added = []
    for text, i in sorted(tokenizer.specials.items(), key=lambda item: item[1]):
        token = {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False}
        added.append({**token, "normalized": False, "special": True})
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    split = {
        "type": "Split",
        "pattern": {"Regex": tokenizer.splitter.pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": entries_of(tokenizer),  # specials too: one whose id is no next one must be there
        "merges": merges_of(tokenizer),
    }
    return {
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


def _hf_pattern(pre_tokenizer: object) -> str:
    """The split pattern, or its name, that gives the chunks of a Hugging Face pre_tokenizer."""
    steps = [pre_tokenizer]
    if isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Sequence":
        steps = pre_tokenizer.get("pretokenizers")
    settings: list[dict[str, object]] = []
    for step in steps if isinstance(steps, list) else [None]:
        if not isinstance(step, dict):
            raise TokenizerFormatError(f"the pre_tokenizer {short(pre_tokenizer)} is not supported")
        settings.append(step)
    kinds = [step.get("type") for step in settings]
    if kinds[-1:] != ["ByteLevel"] or settings[-1].get("add_prefix_space"):
        raise TokenizerFormatError(
            "the pre_tokenizer must end in ByteLevel without add_prefix_space"
        )
    first = settings[0]
    uses_gpt2 = settings[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and uses_gpt2:
        return "gpt2"
    if kinds == ["Digits", "ByteLevel"] and first.get("individual_digits") and uses_gpt2:
        return GPT2_DIGITS
    if kinds == ["Split", "ByteLevel"] and not uses_gpt2:
        pattern = first.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        isolated = first.get("behavior") == "Isolated" and not first.get("invert")
        if isinstance(regex, str) and isolated:
            return regex
    raise TokenizerFormatError(
        f"the pre_tokenizers {short(kinds)} with these settings are not supported"
    )
