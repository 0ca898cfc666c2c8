"""The page of the lens: all it shows of one model and one text, as one HTML file.

view = page.look(subject, LensConfig(prompt="The king said"))
page.write(view, Path("lens.html"))
"""

import json
import logging
from pathlib import Path

import torch
from torch import Tensor

from lm.lens import axes, training_step, values, views
from lm.lens.axes import Axis
from lm.lens.bigram_view import bigram
from lm.lens.embedding_map import embeddings
from lm.lens.subject import Subject, embedding_tables
from lm.lens.tracing import Trace
from lm.lens.views import Values, View
from lm.models.base import LanguageModel
from lm.settings.commands import LensConfig
from lm.system import files
from lm.system.errors import ConfigError
from lm.tokenizers import Tokenizer

log = logging.getLogger(__name__)
WEB = Path(__file__).parent / "web"
MARK = "<title>lens</title>"  # in each page
MAX_COUNTED = 5_000_000  # training tokens whose pairs are counted
MAX_BYTES = 5_000_000  # of a page
OWN_BYTES = 100_000  # of it, for script and style
BYTES_A_STEP = 1_000  # of it, for all but the numbers of a step
N_EXAMPLE = 16  # tokens of the training text that serve as a prompt where nothing else does


def write(view: View, out: Path) -> None:
    """Write the page; ConfigError where another file of that name is."""
    files.check_own(out, MARK)
    files.make_folder(out.parent)
    files.atomic_write(out, html(view))


def html(view: View) -> str:
    """One HTML file that needs no other: style, script and data inside."""
    data = _json(view)
    # "<" as \u003c: no text of a model or a person can end the script element.
    parts = {"data": data.replace("<", "\\u003c")}
    for name in ("lens.css", "base.js", "values.js", "training.js", "charts.js"):
        parts[name] = (WEB / name).read_text(encoding="utf-8")
    whole = (WEB / "lens.html").read_text(encoding="utf-8")
    # The data comes last, so that nothing in it is taken for a name to be replaced.
    for name in ("lens.css", "base.js", "values.js", "training.js", "charts.js", "data"):
        whole = whole.replace(f"{{{{{name}}}}}", parts[name])
    return whole


def _json(view: Values | View) -> str:
    return json.dumps(
        files.finite(view), ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def look(subject: Subject, cfg: LensConfig) -> View:
    """Run the model on the prompt; return all that the page and the terminal show.

    Raises ConfigError if the prompt is empty, too long or has unknown tokens, or if the model has
    no such layer.
    """
    model, tokenizer = subject.model, subject.tokenizer
    prompt = _example(subject) if cfg.prompt is None else cfg.prompt
    batch = _encoded(subject, prompt)
    ids = batch[0]  # (T,)
    trace, axes_of_steps = axes.with_axes(model, batch)
    n_layer = len(trace.layers) - 1  # the first entry is the embedding
    if n_layer > 0 and not -n_layer <= cfg.layer < n_layer:
        raise ConfigError(
            f"layer={cfg.layer}: the model has layers 0 to {n_layer - 1}; -1 is the last"
        )
    logits = trace.logits[0]  # (T, V)
    logp = logits.float().log_softmax(dim=-1)
    tables = embedding_tables(subject)
    view: View = {
        "about": _about(subject, trace, prompt, cfg.layer),
        "vocab": [tokenizer.show(i) for i in range(tokenizer.vocab_size)],
        "tokens": _tokens(tokenizer, ids.tolist()),
        "bits": views.token_bits(logp, ids),
        "shapes": views.shapes(model, trace, axes_of_steps, subject.cfg.train.batch_size),
        "embeddings": embeddings(tables, ids.unique().tolist(), subject.train_ids),
        "layers": views.logit_lens(model, trace, ids),
        "next": views.next_tokens(logp, ids),
        "sampling": views.sampling(logits, cfg.seed, cfg.temperature, cfg.top_k, cfg.top_p),
        "bigram": _bigram(subject, ids),
        "training": training_step.of(subject),
        "attention": {},
        "values": {},
        "matrices": {},
    }
    _fill(view, model, trace, axes_of_steps, cfg.layer)
    return view


def _fill(
    view: View, model: LanguageModel, trace: Trace, axes_of_steps: list[list[Axis]], layer: int
) -> None:
    """Add what there is room for: attention, then numbers of the steps, then matrices.

    Raises ConfigError if the page is above MAX_BYTES without them, as that of a very long prompt.
    """
    room = MAX_BYTES - OWN_BYTES - BYTES_A_STEP * len(trace.steps) - _size(view)
    # Two thirds of the room; as text a byte takes one and a third.
    view["attention"] = views.attention(trace, min(views.MAX_MAPS, max(0, room) // 2))
    room -= _size(view["attention"])
    if room < 0:
        T = view["about"]["T"]
        n_bytes = MAX_BYTES - room
        raise ConfigError(
            f"prompt has {T:,} tokens: their page would have {n_bytes / 1e6:.1f} MB, and "
            f"{MAX_BYTES / 1e6:.0f} MB are the limit; shorten it to "
            f"{T * MAX_BYTES // n_bytes:,} tokens"
        )
    n_numbers = min(values.MAX_NUMBERS, int(room / values.BYTES))
    view["values"] = values.of_trace(model, trace, axes_of_steps, layer, n_numbers)
    room -= sum(len(table["numbers"]) for table in view["values"]["tables"] if table)
    view["matrices"] = values.matrices(model, trace, layer, room)


def _size(values: Values | View) -> int:
    """Bytes of plain values on the page."""
    return len(_json(values).encode())


def _example(subject: Subject) -> str:
    """A prompt where none was given, no longer than the model reads.

    It is the corpus's example or, where the tokenizer cannot encode that, how the training text
    begins.
    """
    tokenizer = subject.tokenizer
    try:
        ids = tokenizer.encode_ordinary(subject.cfg.corpus.example)
    except ValueError:
        ids = []
        if subject.train_ids is not None:
            first = subject.train_ids[:N_EXAMPLE].tolist()
            ids = [i for i in first if tokenizer.token_bytes(i)]  # no special token
    return tokenizer.decode(ids[: subject.model.context_len])


def _encoded(subject: Subject, prompt: str) -> Tensor:
    """The prompt as ids (1, T)."""
    context_len = subject.model.context_len
    try:
        ids = subject.tokenizer.encode_ordinary(prompt)
    except ValueError as error:
        raise ConfigError(f"prompt={prompt}: {error}") from None
    if not ids:
        raise ConfigError("prompt is empty: give some text, such as prompt='The king said'")
    if len(ids) > context_len:
        raise ConfigError(
            f"prompt has {len(ids)} tokens but the model reads {context_len}: shorten it, "
            f"or train with model.context_len={len(ids)}"
        )
    return torch.tensor([ids])


def _tokens(tokenizer: Tokenizer, ids: list[int]) -> list[Values]:
    """The tokens of the text; those that share a character know it, and where they stand in it."""
    tokens = [_token(tokenizer, i) for i in ids]
    open_tokens: list[Values] = []  # that begin a character which is not complete yet
    content = b""
    for i, token in zip(ids, tokens, strict=True):
        content += tokenizer.token_bytes(i)
        open_tokens.append(token)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            continue
        if len(open_tokens) > 1:
            for place, part in enumerate(open_tokens):
                part["shared"] = text
                part["is_first"] = place == 0
                part["is_last"] = part is token
        open_tokens = []
        content = b""
    return tokens


def _token(tokenizer: Tokenizer, i: int) -> Values:
    content = tokenizer.token_bytes(i)
    return {
        "id": i,
        "text": tokenizer.show(i),
        "hex": content.hex(" "),
        "n": len(content),
        # For the eye: the page shows white space as marks, but keeps the text's line breaks.
        "plain": content.decode("utf-8", "replace"),
    }


def _about(subject: Subject, trace: Trace, prompt: str, layer: int) -> Values:
    model, cfg = subject.model, subject.cfg
    return {
        "model": cfg.model.name,
        "class": type(model).__name__,
        "name": subject.name,
        "step": subject.step,
        "trained": bool(subject.checkpoints) or not model.trainable,
        "corpus": cfg.corpus.name,
        "tokenizer": cfg.tokenizer.name,
        "n_params": model.n_params(),
        "flops": trace.flops,
        "T": trace.logits.shape[1],
        "memory": min(model.memory, model.context_len - 1),
        "vocab_size": model.vocab_size,
        "context_len": model.context_len,
        "layer": layer,
        "prompt": prompt,
    }


def _bigram(subject: Subject, ids: Tensor) -> Values:
    if subject.train_ids is None:
        return {"missing": subject.missing}
    return bigram(subject.train_ids[:MAX_COUNTED], subject.model.vocab_size, ids)


def after_run(out: Path) -> Path | None:
    """Write the page of a finished run into it, as `track.lens=true` asks; None if that failed."""
    cfg = LensConfig()
    try:
        subject = Subject.of_run(str(out), cfg.checkpoint)
        prompts = [prompt for prompt in subject.cfg.train.prompts if prompt]
        cfg.prompt = prompts[0] if prompts else None
        write(look(subject, cfg), out / "lens.html")
    except Exception as error:  # the run is good whatever goes wrong in looking at it
        log.warning(f"no lens of {out}: {' '.join(str(error).split())}")
        return None
    return out / "lens.html"
