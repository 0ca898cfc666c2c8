"""The model card of an export: how to load it, how good it is, what it was made of."""

import html
import json
import re
from collections.abc import Mapping

from lm import config
from lm.huggingface import families
from lm.record.run import Run
from lm.record.schemas import CodeRecord, DataRecord, Summary, read_part
from lm.system.text import printable

USES = {
    "hf": """# pip install "transformers>={since}"
from transformers import AutoModelForCausalLM, AutoTokenizer

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
METRICS = ("val/loss", "val/ppl", "val/bpb", "step", "tokens", "parameters")


def write(run: Run, checkpoint: str, kind: str, name: str) -> str:
    """The text of README.md for the export of a run's checkpoint.

    `kind` is the format, a key of USES, and `name` the export's folder as the code there calls it.
    """
    step = int(run.checkpoint(checkpoint).name.removeprefix("step_"))
    code = read_part(run.path, CodeRecord)
    since = families.SINCE[families.family(run.cfg.model)] if kind == "hf" else ""
    versions = json.loads(code.to_json()) if code else {}
    in_code = json.dumps(name, ensure_ascii=False)[1:-1]
    return f"""# {_plain(f"{run.cfg.name or run.cfg.model.name} on {run.cfg.corpus.name}")}

Exported from the run {_code(run.path.name)}, checkpoint {checkpoint}, which is step {step:,}.

{_block(USES[kind].format(name=in_code, since=since), "python")}

## Results

Of this checkpoint on the validation split; bits per byte compare across tokenizers, loss and
perplexity do not.

| | |
|---|---|
{_results(run, step)}

## Data

{run.cfg.corpus.name}: {_text_sizes(run)}.

## Settings

{_block(_lines(config.public(config.flat(run.cfg))))}

## Code

{_block(_lines(versions))}
"""


def _results(run: Run, step: int) -> str:
    """The metrics of a step as rows of a table."""
    found: dict[str, object] = {}
    for row in run.metrics():
        if row.get("step") == step:
            found |= row
    found["step"] = step
    summary = read_part(run.path, Summary)
    if summary:
        found["parameters"] = summary.n_params
    rows = []
    for key in METRICS:
        if key in found:
            value = found[key]
            text = f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
            rows.append(f"| {key} | {text} |")
    return "\n".join(rows)


def _text_sizes(run: Run) -> str:
    data = read_part(run.path, DataRecord)
    if not data:
        return "not recorded"
    splits = data.corpus.splits
    n_train = round(splits.train.n_bytes * data.times_first)
    about = "about " if data.times_first > 1 else ""
    return f"train {about}{n_train:,} bytes, val {splits.val.n_bytes:,} bytes"


def _plain(text: str) -> str:
    """The text for Markdown in which it has no meaning: no HTML, no link, no code."""
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", html.escape(text, quote=False))
    return " ".join(printable(escaped).split())


def _code(text: str) -> str:
    """The text as code inside a line."""
    text = " ".join(printable(text).split())
    mark = _longer_than_any("`", text)
    return f"{mark} {text} {mark}" if "`" in text else f"`{text}`"


def _block(text: str, language: str = "") -> str:
    """The text as a block of code, which no text in it can end."""
    mark = _longer_than_any("`", f"``{text}")
    return f"{mark}{language}\n{printable(text)}\n{mark}"


def _longer_than_any(mark: str, text: str) -> str:
    """The mark, repeated once more than anywhere in the text."""
    return mark * (1 + max((len(run) for run in re.findall(f"{mark}+", text)), default=0))


def _lines(values: Mapping[str, object]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in values.items())
