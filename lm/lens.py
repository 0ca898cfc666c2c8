"""See a model at work on one text: bytes -> tokens -> embeddings -> layers -> probabilities.

    python -m lm.lens run=latest prompt="The king said" layer=0 out=king.html
    python -m lm.lens model=transformer model.n_layer=2          # before any training

Prints the short form and writes one HTML page that needs no network. How the model is watched is
in probe.py, what the page shows is made here and in views.py, how it looks is in page/.
"""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lm import checkpoint, cli, launch, lens_text, pipeline, probe, runtime, views
from lm.config import Config, ConfigError, LensConfig
from lm.models.base import LanguageModel
from lm.run import Run

log = logging.getLogger(__name__)
PAGE = Path(__file__).parent / "page"
MAX_COUNTED = 5_000_000  # training tokens whose pairs are counted


@dataclass
class Subject:
    """The model to look at, and where it comes from."""

    model: LanguageModel
    tokenizer: Any
    cfg: Config
    name: str  # of the run; "untrained" for a model from the configuration alone
    home: Path  # where the page goes unless told otherwise
    step: int = 0
    weights: list[tuple[int, Path]] = field(default_factory=list)  # checkpoints, oldest first
    train_ids: np.ndarray | None = None  # (n,) for the counts beside the model
    missing: str = ""  # why there are none

    @classmethod
    def of_run(cls, name: str, which: str) -> "Subject":
        run = Run.open(name)
        step = int(run.checkpoint(which).name.removeprefix("step_"))
        found = [(s, checkpoint.folder(run.path, s)) for s in checkpoint.steps(run.path)]
        subject = cls(
            run.model(which), run.tokenizer, run.cfg, str(run.path), run.path, step, found
        )
        try:
            with pipeline.quietly():
                prepared = pipeline.prepare(run.cfg)
        except (ValueError, OSError) as error:  # the text may lie on another machine
            subject.missing = " ".join(str(error).split())
            return subject
        if prepared.tokenizer.fingerprint == run.tokenizer.fingerprint:
            subject.train_ids = prepared.train
        else:
            subject.missing = "the text of this run has changed since"
        return subject

    @classmethod
    def untrained(cls, cfg: Config) -> "Subject":
        prepared = pipeline.prepare(cfg)
        model = first_weights(cfg, prepared.tokenizer.vocab_size)
        model.fit(prepared.train)  # counts; nothing for a model that learns by gradient
        name = "untrained" if model.trainable else "counted"
        return cls(model, prepared.tokenizer, cfg, name, Path(), train_ids=prepared.train)


def first_weights(cfg: Config, vocab_size: int) -> LanguageModel:
    """The model as training would start with it."""
    torch.manual_seed(runtime.seed(cfg.seed, "init"))
    return cfg.model.build(vocab_size).eval()


def command(cfg: LensConfig) -> None:
    if cfg.run and cfg.overrides:
        raise ConfigError(
            f"run={cfg.run} has its own settings: leave out {cfg.overrides[0]}, or leave out run="
        )
    if cfg.overrides:
        subject = Subject.untrained(launch.compose_run(cfg.overrides))
    else:
        subject = Subject.of_run(cfg.run or "latest", cfg.checkpoint)
    view = look(subject, cfg)
    out = Path(cfg.out) if cfg.out else subject.home / "lens.html"
    write(view, out)
    lens_text.show(view)
    print(f"\nthe whole of it, to open in a browser: {out} ({out.stat().st_size / 1e6:.2f} MB)")


def write(view: dict[str, Any], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(view), encoding="utf-8")


def page(view: dict[str, Any]) -> str:
    """One HTML file of its own: style, script and data inside."""
    names = ("lens.css", "base.js", "charts.js")
    parts = {name: (PAGE / name).read_text(encoding="utf-8") for name in names}
    # "<" as \u003c: no text of a model or a person can end the script element.
    parts["data"] = json.dumps(view, ensure_ascii=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    html = (PAGE / "lens.html").read_text(encoding="utf-8")
    for name, text in parts.items():
        html = html.replace(f"{{{{{name}}}}}", text)
    return html


def look(subject: Subject, cfg: LensConfig) -> dict[str, Any]:
    """All that the page and the terminal show, as JSON could hold it. Raises ValueError where the
    prompt is empty, too long or has unknown tokens, and for a layer that is not there."""
    model, tokenizer = subject.model, subject.tokenizer
    ids = _ids(model, tokenizer, cfg.prompt)
    trace, axes = probe.with_axes(model, ids)
    layers = [path for path, _ in trace.layers[1:]]
    if layers and not -len(layers) <= cfg.layer < len(layers):
        raise ConfigError(
            f"layer={cfg.layer}: the model has layers 0 to {len(layers) - 1}; -1 is the last"
        )
    text = [_token(tokenizer, i) for i in ids[0].tolist()]
    logp = trace.logits[0].float().log_softmax(dim=-1)  # (T, V)
    return {
        "about": _about(subject, trace, cfg),
        "vocab": [tokenizer.show(i) for i in range(tokenizer.vocab_size)],
        "tokens": text,
        "bits": _bits(logp, ids[0]),
        "shapes": views.shapes(model, trace, axes, subject.cfg.train.batch_size),
        "embeddings": views.embeddings(_tables(subject), ids[0].unique().tolist()),
        "attention": views.attention(trace),
        "layers": views.logit_lens(model, trace, ids[0]),
        "next": views.next_tokens(logp, ids[0]),
        "sampling": views.sampling(
            trace.logits[0], cfg.seed, cfg.temperature, cfg.top_k, cfg.top_p
        ),
        "bigram": _bigram(subject, ids[0]),
    }


def _ids(model: LanguageModel, tokenizer: Any, prompt: str) -> Tensor:
    """The prompt as ids (1, T)."""
    ids = tokenizer.encode_ordinary(prompt)
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


def _about(subject: Subject, trace: probe.Trace, cfg: LensConfig) -> dict[str, Any]:
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
        "vocab_size": model.vocab_size,
        "context_len": model.context_len,
        "layer": cfg.layer,
        "prompt": cfg.prompt,
    }


def _tables(subject: Subject) -> Iterator[tuple[int, Tensor]]:
    """The embedding table (V, C) at each step it is known of, the one looked at last."""
    model = subject.model
    name = embedding_name(model)
    if name is None:
        return
    V = model.vocab_size  # rows above it stand for no token
    if subject.weights:
        start = first_weights(subject.cfg, model.vocab_size)
        if not getattr(subject.cfg, "init_from", ""):
            yield 0, start.get_parameter(name).detach()[:V]
        for step, folder in subject.weights:
            if 0 < step < subject.step:
                yield step, checkpoint.load_tensors(folder / "model.safetensors")[name][:V]
    yield subject.step, model.get_parameter(name).detach()[:V]


def embedding_name(model: LanguageModel) -> str | None:
    """The parameter with a row for every token, if the model has one."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings >= model.vocab_size:
            return f"{name}.weight"
    return None


def _bigram(subject: Subject, ids: Tensor) -> dict[str, Any]:
    if subject.train_ids is None:
        return {"missing": subject.missing}
    return views.bigram(subject.train_ids[:MAX_COUNTED], subject.model.vocab_size, ids)


def after_run(out: Path) -> Path | None:
    """Write the page of a finished run into it, as `track.lens=true` asks; None if that failed."""
    cfg = LensConfig()
    try:
        subject = Subject.of_run(str(out), cfg.checkpoint)
        cfg.prompt = next(filter(None, subject.cfg.train.prompts), cfg.prompt)
        write(look(subject, cfg), out / "lens.html")
    except Exception as error:  # the run is good whatever goes wrong in looking at it
        log.warning(f"no lens of {out}: {' '.join(str(error).split())}")
        return None
    return out / "lens.html"


if __name__ == "__main__":
    cli.main(LensConfig, command)
