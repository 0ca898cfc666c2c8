"""The model card of an export: how to load it, how good it is, what it was made of."""

import json
from dataclasses import dataclass

from lm import config
from lm.record.run import Run
from lm.record.schemas import CodeRecord, DataRecord, Summary, read_part
from lm.report import records
from lm.settings import Settings, one_of

USES = {
    "hf": """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
ids = tokenizer("The", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=40)[0]))""",
    "tokenizers": """from tokenizers import Tokenizer

print(Tokenizer.from_file("{name}/tokenizer.json").encode("The king").ids)""",
    # not tiktoken's own load_tiktoken_bpe: it keeps what it once read from a path, for good
    "tiktoken": """import base64
import json
from pathlib import Path

import tiktoken

about = json.loads(Path("{name}/encoding.json").read_bytes())
lines = Path("{name}/ranks.tiktoken").read_bytes().splitlines()
ranks = {{base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}}
encoding = tiktoken.Encoding(**about, mergeable_ranks=ranks)
print(encoding.encode("The king"))""",
}


@dataclass
class ExportConfig(Settings):
    """python -m lm.export: a trained model, or its tokenizer, for other programs."""

    run: str = "latest"
    checkpoint: str = "best"
    format: str = one_of("hf", "tokenizers", "tiktoken")
    out: str = ""  # a new folder; empty: export-FORMAT in the run


def card(run: Run, cfg: ExportConfig, name: str) -> str:
    """README.md of an export: how to load it, how good it is, what it was made of."""
    summary = read_part(run.path, Summary)
    data = read_part(run.path, DataRecord)
    code = read_part(run.path, CodeRecord)
    step = int(run.checkpoint(cfg.checkpoint).name.removeprefix("step_"))
    points = [p for p in records.lines(run.path / "metrics.jsonl") if p.get("step") == step]
    found = {k: v for point in points for k, v in point.items()} | {"step": step}
    if summary:
        found["parameters"] = summary.n_params
    shown = ("val/loss", "val/ppl", "val/bpb", "step", "tokens", "parameters")
    rows = [(key, found[key]) for key in shown if key in found]
    results = "\n".join(f"| {k} | {v:.4f} |" if isinstance(v, float) else f"| {k} | {v:,} |"
                        for k, v in rows)  # fmt: skip
    sizes = "not recorded"
    if data:
        text = data.corpus.splits
        sizes = f"train {text.train.n_bytes:,} bytes, val {text.val.n_bytes:,} bytes"
    settings = "\n".join(f"{k}: {v}" for k, v in config.flat(run.cfg).items())
    versions = json.loads(code.to_json()) if code else {}
    versions = "\n".join(f"{k}: {v}" for k, v in versions.items())
    return f"""# {run.cfg.name or run.cfg.model.name} on {run.cfg.corpus.name}

Exported from the run `{run.path.name}`, checkpoint {cfg.checkpoint}, which is step {step:,}.

```python
{USES[cfg.format].format(name=name)}
```

## Results

Of this checkpoint on the validation split; bits per byte compare across tokenizers, loss and
perplexity do not.

| | |
|---|---|
{results}

## Data

{run.cfg.corpus.name}: {sizes}.

## Settings

```
{settings}
```

## Code

```
{versions}
```
"""
