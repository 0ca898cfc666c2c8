"""The page of the lens: all it shows of one model and one text, as one HTML file.

view = page.look(subject, LensConfig(prompt="The king said"))
page.write(view, Path("lens.html"))
"""

import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lm.lens import probe, views
from lm.lens.subject import Subject, tables
from lm.models.base import LanguageModel
from lm.settings import Settings, within
from lm.system import files
from lm.system.errors import ConfigError

log = logging.getLogger(__name__)
WEB = Path(__file__).parent / "web"
MAX_COUNTED = 5_000_000  # training tokens whose pairs are counted


@dataclass
class LensConfig(Settings):
    """python -m lm.lens: see what a model does with a text, from its bytes to probabilities.

    Settings of lm.train, such as model=gru model.n_layer=2, show such a model before training.
    """

    run: str = ""  # a run directory; empty: the newest, unless settings describe a model
    checkpoint: str = "best"
    prompt: str | None = None  # None: an example that suits the text
    layer: int = -1  # the one to begin with; -1 is the last
    out: str = ""  # the page; empty: lens.html in the run, or here
    seed: int = within(0, 0)  # of the draws that the page shows: lm.sample's
    temperature: float = within(0.8, 0.0)  # where its controls stand at first
    top_k: int = within(0, 0)
    top_p: float = within(1.0, 1e-6, 1.0)
    overrides: list[str] = field(default_factory=list)  # the settings of a model without a run


def write(view: dict[str, Any], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(html(view), encoding="utf-8")


def html(view: dict[str, Any]) -> str:
    """One HTML file of its own: style, script and data inside."""
    names = ("lens.css", "base.js", "charts.js")
    parts = {name: (WEB / name).read_text(encoding="utf-8") for name in names}
    # "<" as \u003c: no text of a model or a person can end the script element.
    data = files.finite(view)
    data = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    parts["data"] = data.replace("<", "\\u003c")
    whole = (WEB / "lens.html").read_text(encoding="utf-8")
    for name, text in parts.items():
        whole = whole.replace(f"{{{{{name}}}}}", text)
    return whole


def look(subject: Subject, cfg: LensConfig) -> dict[str, Any]:
    """All that the page and the terminal show, as JSON could hold it. Raises ValueError where the
    prompt is empty, too long or has unknown tokens, and for a layer that is not there."""
    model, tokenizer = subject.model, subject.tokenizer
    prompt = _example(subject) if cfg.prompt is None else cfg.prompt
    ids = _ids(model, tokenizer, prompt)
    trace, axes = probe.with_axes(model, ids)
    layers = [path for path, _ in trace.layers[1:]]
    if layers and not -len(layers) <= cfg.layer < len(layers):
        raise ConfigError(
            f"layer={cfg.layer}: the model has layers 0 to {len(layers) - 1}; -1 is the last"
        )
    text = [_token(tokenizer, i) for i in ids[0].tolist()]
    logp = trace.logits[0].float().log_softmax(dim=-1)  # (T, V)
    return {
        "about": _about(subject, trace, prompt, cfg.layer),
        "vocab": [tokenizer.show(i) for i in range(tokenizer.vocab_size)],
        "tokens": text,
        "bits": _bits(logp, ids[0]),
        "shapes": views.shapes(model, trace, axes, subject.cfg.train.batch_size),
        "embeddings": views.embeddings(
            tables(subject), ids[0].unique().tolist(), subject.train_ids
        ),
        "attention": views.attention(trace),
        "layers": views.logit_lens(model, trace, ids[0]),
        "next": views.next_tokens(logp, ids[0]),
        "sampling": views.sampling(
            trace.logits[0], cfg.seed, cfg.temperature, cfg.top_k, cfg.top_p
        ),
        "bigram": _bigram(subject, ids[0]),
    }


def _example(subject: Subject) -> str:
    """What to look at if nobody said: the corpus's example or, where the tokenizer cannot read
    that, how the training text begins; no more than the model reads."""
    tokenizer, train = subject.tokenizer, subject.train_ids
    try:
        ids = tokenizer.encode_ordinary(subject.cfg.corpus.example)
    except ValueError:
        first = [] if train is None else train[:16].tolist()
        ids = [i for i in first if tokenizer.token_bytes(i)]  # no special token
    return tokenizer.decode(ids[: subject.model.context_len])


def _ids(model: LanguageModel, tokenizer: Any, prompt: str) -> Tensor:
    """The prompt as ids (1, T)."""
    try:
        ids = tokenizer.encode_ordinary(prompt)
    except ValueError as error:
        raise ConfigError(f"prompt={prompt}: {error}") from None
    if not ids:
        raise ConfigError("prompt is empty: give some text, such as prompt='The king said'")
    if len(ids) > model.context_len:
        raise ConfigError(
            f"prompt has {len(ids)} tokens but the model reads {model.context_len}: shorten it, "
            f"or train with model.context_len={len(ids)}"
        )
    return torch.tensor([ids])


def _token(tokenizer: Any, i: int) -> dict[str, Any]:
    raw = tokenizer.token_bytes(i)
    # For the eye: the page shows white space as marks, but keeps the line breaks of the text.
    return {"id": i, "text": tokenizer.show(i), "hex": raw.hex(" "), "n": len(raw),
            "plain": raw.decode("utf-8", "replace")}  # fmt: skip


def _bits(logp: Tensor, ids: Tensor) -> list[float | None]:
    """What each token cost, in bits; None for the first, which nothing predicts."""
    nats = -logp[:-1].gather(1, ids[1:, None]).squeeze(1)  # (T - 1,)
    return [None, *(round(x, 4) for x in (nats / math.log(2)).tolist())]


def _about(subject: Subject, trace: probe.Trace, prompt: str, layer: int) -> dict[str, Any]:
    model, run = subject.model, subject.cfg
    T = trace.logits.shape[1]
    return {
        "model": run.model.name,
        "class": type(model).__name__,
        "name": subject.name,
        "step": subject.step,
        "trained": bool(subject.weights) or not model.trainable,
        "corpus": run.corpus.name,
        "tokenizer": run.tokenizer.name,
        "n_params": model.n_params(),
        "flops": trace.flops,
        "T": T,
        "memory": min(model.memory, model.context_len - 1),
        "vocab_size": model.vocab_size,
        "context_len": model.context_len,
        "layer": layer,
        "prompt": prompt,
    }


def _bigram(subject: Subject, ids: Tensor) -> dict[str, Any]:
    if subject.train_ids is None:
        return {"missing": subject.missing}
    return views.bigram(subject.train_ids[:MAX_COUNTED], subject.model.vocab_size, ids)


def after_run(out: Path) -> Path | None:
    """Write the page of a finished run into it, as `track.lens=true` asks; None if that failed."""
    cfg = LensConfig()
    try:
        subject = Subject.of_run(str(out), cfg.checkpoint)
        cfg.prompt = next(filter(None, subject.cfg.train.prompts), None)
        write(look(subject, cfg), out / "lens.html")
    except Exception as error:  # the run is good whatever goes wrong in looking at it
        log.warning(f"no lens of {out}: {' '.join(str(error).split())}")
        return None
    return out / "lens.html"
