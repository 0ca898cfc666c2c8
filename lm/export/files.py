"""The files of an export: what transformers, tokenizers and tiktoken read."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from lm.huggingface import config as hf_config
from lm.huggingface import weights as hf_weights
from lm.record.run import Run
from lm.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, formats


def to_transformers(run: Run, folder: Path, which: str) -> None:
    """A folder for AutoModelForCausalLM and AutoTokenizer."""
    eot = run.tokenizer.specials.get(run.tokenizer.eot)
    settings = hf_config.config_of(run.cfg.model, run.tokenizer.vocab_size, eot)
    model = run.model(which)
    weights = {k: v.contiguous().clone() for k, v in hf_weights.to_hf(model).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", settings)
    _write(folder / "generation_config.json", {"bos_token_id": eot, "eos_token_id": eot})
    to_tokenizers(run, folder, which)
    special = {} if eot is None else dict.fromkeys(("bos_token", "eos_token"), run.tokenizer.eot)
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    limit = {"model_max_length": model.context_len}
    _write(folder / "tokenizer_config.json", about | special | limit)


def to_tokenizers(run: Run, folder: Path, which: str) -> None:
    """tokenizer.json for the tokenizers library."""
    if isinstance(run.tokenizer, CharTokenizer):
        _write(folder / "tokenizer.json", _char(run.tokenizer))
    else:
        formats.to_hf(_as_bpe(run.tokenizer), folder / "tokenizer.json")


def to_tiktoken(run: Run, folder: Path, which: str) -> None:
    """A rank file, and the pattern and specials that tiktoken.Encoding takes beside it."""
    if isinstance(run.tokenizer, CharTokenizer):
        raise ValueError("tiktoken works on bytes, a char tokenizer on characters: format=hf")
    tokenizer = _as_bpe(run.tokenizer)
    formats.to_tiktoken(tokenizer, folder / "ranks.tiktoken")
    encoding = {"name": run.path.name, "pat_str": tokenizer.splitter.pattern}
    _write(folder / "encoding.json", encoding | {"special_tokens": tokenizer.specials})


def _as_bpe(tokenizer: Any) -> BPETokenizer:
    """Bytes are byte-pair encoding without a merge."""
    if not isinstance(tokenizer, ByteTokenizer):
        return tokenizer
    return BPETokenizer({b: bytes([b]) for b in range(256)}, [], "gpt2", tokenizer.specials)


def _char(tokenizer: CharTokenizer) -> dict[str, Any]:
    """tokenizer.json of one token a character. It has to name a token for characters that ours
    refuses: the end of a document."""
    ordinary = [i for i in range(tokenizer.vocab_size) if i not in tokenizer.specials.values()]
    vocab = {tokenizer.token_bytes(i).decode(): i for i in ordinary} | tokenizer.specials
    added = [
        {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for text, i in tokenizer.specials.items()
    ]
    unknown = next(iter(tokenizer.specials), "")
    every = {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated"}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": every | {"invert": False},
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": unknown},
    }


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
