"""The files of an export: what transformers, tokenizers and tiktoken read.

A new format has its writer in WRITERS, its lines of Python in card.USES, and its name in the
choices of ExportConfig.format.
"""

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save

from lm.huggingface import config_json, families, weights
from lm.record.run import Run
from lm.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, formats


def to_transformers(run: Run, checkpoint: str, folder: Path) -> None:
    """Write a folder for AutoModelForCausalLM and AutoTokenizer.

    Raises ValueError if no class of transformers computes the run's model, or none of the
    transformers that is installed here.
    """
    tokenizer = run.tokenizer
    eot_id = tokenizer.specials.get(tokenizer.eot)
    config = config_json.to_hf(run.cfg.model, tokenizer.vocab_size, eot_id)
    _check_loadable(families.family(run.cfg.model))
    model = run.model(checkpoint)
    tensors = {}
    for name, tensor in weights.to_hf(model).items():
        tensors[name] = tensor.contiguous().clone()  # tensors that share memory are not saved
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {"bos_token_id": eot_id, "eos_token_id": eot_id})
    to_tokenizers(tokenizer, folder)
    about: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    if eot_id is not None:
        about["bos_token"] = tokenizer.eot
        about["eos_token"] = tokenizer.eot
    about["model_max_length"] = model.context_len
    _write(folder / "tokenizer_config.json", about)


def _check_loadable(family: str) -> None:
    """Raise ValueError if an installed transformers has no such family; none need be installed."""
    found = importlib.util.find_spec("transformers")  # it is not imported: that takes seconds
    if found is None or not found.submodule_search_locations:
        return
    folder = Path(found.submodule_search_locations[0])
    if not (folder / "models" / family).is_dir():
        version = importlib.metadata.version("transformers")
        needed = families.SINCE[family]
        raise ValueError(
            f"transformers {version}, installed here, has no {families.CLASSES[family]}: "
            f"pip install 'transformers>={needed}'"
        )


def to_tokenizers(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json for the tokenizers library."""
    if isinstance(tokenizer, CharTokenizer):
        _write(folder / "tokenizer.json", _word_level(tokenizer))
    else:
        formats.to_hf(_as_bpe(tokenizer), folder / "tokenizer.json")


def to_tiktoken(tokenizer: Tokenizer, name: str, folder: Path) -> None:
    """Write a rank file, and the arguments that tiktoken.Encoding takes beside it.

    Raises ValueError for a char tokenizer.
    """
    if isinstance(tokenizer, CharTokenizer):
        raise ValueError("tiktoken works on bytes, a char tokenizer on characters: format=hf")
    bpe = _as_bpe(tokenizer)
    formats.to_tiktoken(bpe, folder / "ranks.tiktoken")
    encoding = {
        "name": name,
        "pat_str": bpe.splitter.pattern,
        "special_tokens": bpe.specials,
    }
    _write(folder / "encoding.json", encoding)


Writer = Callable[[Run, str, Path], None]  # from a run and its checkpoint into a new folder
WRITERS: dict[str, Writer] = {
    "hf": to_transformers,
    "tokenizers": lambda run, checkpoint, folder: to_tokenizers(run.tokenizer, folder),
    "tiktoken": lambda run, checkpoint, folder: to_tiktoken(run.tokenizer, run.path.name, folder),
}


def _as_bpe(tokenizer: Tokenizer) -> BPETokenizer:
    """The tokenizer itself, or byte-pair encoding without a merge in place of a byte tokenizer."""
    if isinstance(tokenizer, ByteTokenizer):
        tokens = {byte: bytes([byte]) for byte in range(256)}
        return BPETokenizer(tokens, [], "gpt2", tokenizer.specials)
    if not isinstance(tokenizer, BPETokenizer):
        raise ValueError(f"a tokenizer of kind {tokenizer.name} is none of other programs'")
    return tokenizer


def _word_level(tokenizer: CharTokenizer) -> dict[str, object]:
    """A char tokenizer as the values of a tokenizer.json, one token a character.

    The format needs a token for unknown characters, which ours refuses: the first special.
    """
    vocab = {}
    special_ids = set(tokenizer.specials.values())
    for i in range(tokenizer.vocab_size):
        if i not in special_ids:
            vocab[tokenizer.token_bytes(i).decode()] = i
    added_tokens = []
    for text, i in tokenizer.specials.items():
        vocab[text] = i
        token = {
            "id": i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        added_tokens.append(token)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "[\\s\\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": vocab,
            "unk_token": next(iter(tokenizer.specials), ""),
        },
    }


def _write(path: Path, values: Mapping[str, object]) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
