"""Take a trained model elsewhere: to transformers, tokenizers or tiktoken.

    python -m lm.export run=latest format=hf out=my_model
    python -m lm.export run=latest format=tiktoken

What the other side cannot compute exactly is refused, with the reason. Each folder is loaded back
in the real library by the tests.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from lm import cli, config, hf, hf_weights, store
from lm.config import ExportConfig
from lm.run import Run
from lm.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, formats


def command(cfg: ExportConfig) -> None:
    run = Run.open(cfg.run)
    out = Path(cfg.out) if cfg.out else run.path / f"export-{cfg.format}"
    if out.exists():
        raise ValueError(f"{out} exists already: choose another out=")
    with store.new_folder(out) as folder:
        {"hf": to_transformers, "tokenizers": to_tokenizers, "tiktoken": to_tiktoken}[cfg.format](
            run, folder, cfg.checkpoint
        )
        (folder / "README.md").write_text(card(run, cfg, out.name), encoding="utf-8")
    print(f"{out}: {', '.join(sorted(p.name for p in out.iterdir() if p.name != 'manifest.json'))}")


def to_transformers(run: Run, folder: Path, which: str) -> None:
    """A folder for AutoModelForCausalLM and AutoTokenizer."""
    eot = run.tokenizer.specials.get("<|endoftext|>")
    settings = hf.config_of(run.cfg.model, run.tokenizer.vocab_size, eot)
    model = run.model(which)
    weights = {k: v.contiguous().clone() for k, v in hf_weights.to_hf(model).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", settings)
    _write(folder / "generation_config.json", {"bos_token_id": eot, "eos_token_id": eot})
    to_tokenizers(run, folder, which)
    special = {} if eot is None else dict.fromkeys(("bos_token", "eos_token"), "<|endoftext|>")
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


# --------------------------------------------------------------------------------- model card

USES = {
    "hf": """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
ids = tokenizer("The", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=40)[0]))""",
    "tokenizers": """from tokenizers import Tokenizer

print(Tokenizer.from_file("{name}/tokenizer.json").encode("The king").ids)""",
    "tiktoken": """import json
import tiktoken
from tiktoken.load import load_tiktoken_bpe

about = json.load(open("{name}/encoding.json"))
encoding = tiktoken.Encoding(**about, mergeable_ranks=load_tiktoken_bpe("{name}/ranks.tiktoken"))
print(encoding.encode("The king"))""",
}


def card(run: Run, cfg: ExportConfig, name: str) -> str:
    """README.md of an export: how to load it, how good it is, what it was made of."""
    records = {
        key: store.read_json(run.path / f"{key}.json")
        if (run.path / f"{key}.json").exists()
        else {}
        for key in ("summary", "data", "code")
    }
    summary, corpus = records["summary"], records["data"].get("corpus", {})
    rows = [
        (key, summary[key])
        for key in ("val/loss", "val/ppl", "val/bpb", "best_val_bpb", "best_step", "step", "tokens")
        if key in summary
    ]
    results = "\n".join(f"| {k} | {v:.4f} |" if isinstance(v, float) else f"| {k} | {v:,} |"
                        for k, v in rows)  # fmt: skip
    splits = corpus.get("splits", {})
    sizes = ", ".join(f"{s} {n['n_bytes']:,} bytes" for s, n in splits.items())
    settings = "\n".join(f"{k}: {v}" for k, v in config.flat(run.cfg).items())
    code = "\n".join(f"{k}: {v}" for k, v in records["code"].items())
    return f"""# {run.cfg.name or run.cfg.model.name} on {run.cfg.corpus.name}

Exported from the run `{run.path.name}`, checkpoint {cfg.checkpoint}.

```python
{USES[cfg.format].format(name=name)}
```

## Results

On the validation split; bits per byte compare across tokenizers, loss and perplexity do not.

| | |
|---|---|
{results}

## Data

{run.cfg.corpus.name}: {sizes or "not recorded"}.

## Settings

```
{settings}
```

## Code

```
{code}
```
"""


if __name__ == "__main__":
    cli.main(ExportConfig, command)
