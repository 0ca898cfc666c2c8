"""A model of ours in the lm-evaluation-harness: tasks that other models are scored on, too.

    results = harness.evaluate(model, tokenizer, ["arc_easy", "my_task.yaml"])
    results["my_task"].metrics                    # {"acc": (0.62, 0.05), ...}

Gao et al. 2024, https://github.com/EleutherAI/lm-evaluation-harness; needs the extra `eval`. What
the harness asks is answered as its own class for transformers does on the exported model: where
texts are split, what is cut off on the left, how a long text is read. A test holds them together.
"""

import difflib
import logging
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import evaluate as evaluate_tasks
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from lm.generate import generate
from lm.models.base import LanguageModel
from lm.system import devices, onednn, paths, signals
from lm.system.errors import ConfigError
from lm.system.text import printable_line
from lm.tokenizers import Tokenizer

VERSION = lm_eval.__version__
TOKENS = 1 << 12  # at most in one forward pass
LOGITS = 1 << 26  # numbers at most in the logits of one pass: 256 MB
ROWS = 16  # texts that are written at once
YAML = (".yaml", ".yml")
RESAMPLES = 1000  # for the error of a metric that is no mean, such as perplexity
SEEDS = (0, 1234, 1234)  # of random, numpy and the examples in prompts: those of its own command

Score = tuple[float, bool]  # ln p of a continuation, and whether it is the likeliest at each token


@dataclass
class TaskResult:
    """What a task, or a group of tasks, came to."""

    metrics: dict[str, tuple[float, float | None]]  # each with its standard error, where known
    documents: int  # 0 for a group


class Harness(TemplateLM):
    """The three questions of the harness, put to a model and tokenizer of ours."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer):
        super().__init__()
        self.model = model.eval()
        self.ours = tokenizer  # `tokenizer` is the harness's name for one of transformers
        self.max_length = model.context_len

    @property
    def eot_token_id(self) -> int:
        return self.ours.eot_id

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **options: object
    ) -> list[int]:
        """Ids of the text; an end-of-document token written in it counts as one, as there."""
        return self.ours.encode(string, allowed_special="all")

    def loglikelihood(self, requests: list, disable_tqdm: bool = True) -> list[Score]:
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list[float]:
        """ln p of each text, read as a document from its start; every token is predicted once."""
        start = [self.eot_token_id]
        texts = [(("", text), start, self.tok_encode(text)) for (text,) in _args(requests)]
        return [score for score, _ in self._loglikelihood_tokens(texts)]

    @torch.inference_mode()
    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **options: object
    ) -> list[Score]:
        """The score of each continuation after its context, both ids."""
        scores = [0.0] * len(requests)
        greedy = [True] * len(requests)
        pieces = []  # number of the request, ids to read, how many of the last predictions count
        for i, (_, context, continuation) in enumerate(requests):
            pieces += [(i, *piece) for piece in self._windows(context, continuation)]
        pieces.sort(key=lambda piece: len(piece[1]))  # little to pad
        bar = tqdm(total=len(pieces), desc="scored", disable=None)  # on a terminal alone
        while pieces:
            longest = len(pieces[-1][1]) - 1
            n_rows = max(1, min(TOKENS, LOGITS // self.model.vocab_size) // longest)
            rows = pieces[-n_rows:]
            del pieces[-n_rows:]
            bar.update(len(rows))
            ids = torch.zeros(len(rows), longest, dtype=torch.long)
            for row, (_, text, _) in enumerate(rows):
                ids[row, : len(text) - 1] = torch.tensor(text[:-1])
            signals.poll()
            x = ids.to(self.model.device)
            with onednn.products(self.model, x, torch.float32):
                logits = self.model(x)  # (B, T, V)
            for row, (i, text, n) in enumerate(rows):
                end = len(text) - 1
                targets = torch.tensor(text[-n:], device=logits.device)
                ln_p = logits[row, end - n : end].log_softmax(dim=-1)  # (n, V)
                scores[i] += ln_p.gather(1, targets[:, None]).sum().item()
                greedy[i] &= bool((ln_p.argmax(dim=-1) == targets).all())
        return list(zip(scores, greedy, strict=True))

    def _windows(
        self, context: list[int], continuation: list[int]
    ) -> Iterator[tuple[list[int], int]]:
        """Texts of at most context_len + 1 ids, and how many of their last ids are scored.

        All but long texts make one. Of what is longer than the context, each part comes after as
        much of what stands before it as there is room for.
        """
        T = self.max_length
        context = context or [self.eot_token_id]
        ids = context + continuation
        for start in range(len(context), len(ids), T):
            end = min(start + T, len(ids))
            yield ids[max(0, end - T - 1) : end], end - start

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
        """What follows each context, up to the first of its stop texts or the last token."""
        texts = [""] * len(requests)
        groups: dict[str, list[int]] = {}  # requests with the same settings are written together
        asked = _args(requests)
        for i, (_, settings) in enumerate(asked):
            groups.setdefault(repr(settings), []).append(i)
        bar = tqdm(total=len(asked), desc="written", disable=None)
        for members in groups.values():
            for at in range(0, len(members), ROWS):
                rows = members[at : at + ROWS]
                contexts = [asked[i][0] for i in rows]
                written = self._write(contexts, dict(asked[rows[0]][1]), seed=rows[0])
                for i, text in zip(rows, written, strict=True):
                    texts[i] = text
                bar.update(len(rows))
        return texts

    def _write(self, contexts: list[str], settings: dict[str, object], seed: int) -> list[str]:
        known = normalize_gen_kwargs(settings)
        eot = self.ours.decode([self.eot_token_id])
        stops = [stop for stop in handle_stop_sequences(known.get("until"), eot) if stop]
        max_tokens = known.get("max_gen_toks", 256)
        # As much context as leaves room; where there is none, `generate` makes it.
        room = self.max_length - max_tokens if max_tokens < self.max_length else self.max_length
        prompts = [(self.tok_encode(text) or [self.eot_token_id])[-room:] for text in contexts]
        steps = generate(
            self.model,
            prompts,
            max_tokens=max_tokens,
            temperature=known.get("temperature", 0.0) if known.get("do_sample") else 0.0,
            top_k=known.get("top_k") or 0,
            top_p=known.get("top_p") or 1.0,
            seed=seed,
            stop_ids=(self.eot_token_id,),
        )
        written: list[list[int]] = [[] for _ in prompts]
        texts = [""] * len(prompts)
        for step in steps:
            n_open = 0
            for row, token in enumerate(step):
                if token is None or _first(stops, texts[row]) is not None:
                    continue
                written[row].append(token)
                texts[row] = self.ours.decode(written[row])
                n_open += _first(stops, texts[row]) is None
            if not n_open:
                break
        return [text[: _first(stops, text)] for text in texts]


def evaluate(
    model: LanguageModel, tokenizer: Tokenizer, tasks: Sequence[str], limit: int = 0
) -> dict[str, TaskResult]:
    """The results of each task and group: names of the harness, or .yaml files of one's own.

    At most `limit` documents of each task are read; 0 means all. The code that a task file names
    is run, and its data set is loaded, from the hub if need be. Raises ConfigError for a task that
    there is not, and for what goes wrong in the harness.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # what it does, at length
    os.environ["DISABLE_MULTIPROC"] = "1"  # it resamples here, in no processes of its own
    files = [Path(paths.expanded(task)) for task in tasks if Path(task).suffix in YAML]
    names = [task for task in tasks if Path(task).suffix not in YAML]
    for path in files:
        if not path.is_file():
            raise ConfigError(f"tasks={path}: there is no such file")
    manager = TaskManager(include_defaults=bool(names))
    for name in names:
        if not manager.match_tasks([name]):  # which knows patterns, too
            raise ConfigError(f"tasks={name}: {_hint(name, manager.all_tasks)}")
    specs = [*map(str, files), *manager.match_tasks(names)]
    try:
        found = _evaluate(Harness(model, tokenizer), manager, specs, limit)
    except Exception as error:  # a task file, its code, a data set, the network
        if devices.is_out_of_memory(error):
            raise
        text = printable_line(" ".join(f"{type(error).__name__}: {error}".split()))
        raise ConfigError(f"tasks={','.join(tasks)}: {text[:500]}") from error
    counts = found["n-samples"]
    results = {}
    for name, values in {**found["results"], **found.get("groups", {})}.items():
        documents = counts.get(name, {}).get("effective", 0)
        results[name] = TaskResult(_metrics(values), documents)
    return results


def _evaluate(
    harness: Harness, manager: TaskManager, specs: list[str], limit: int
) -> dict[str, Any]:
    """What the harness's own command does: it draws examples and shuffles with these seeds."""
    random_seed, numpy_seed, example_seed = SEEDS
    random.seed(random_seed)
    np.random.seed(numpy_seed)
    loaded = manager.load(specs)
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=example_seed)
    found = evaluate_tasks(
        harness,
        loaded,
        limit=limit or None,
        bootstrap_iters=RESAMPLES,
        log_samples=False,
        fewshot_as_multiturn=True,  # as there; of prompts that are no chat it changes nothing
    )
    assert found is not None  # as in the first of several processes
    return dict(found)


def _args(requests: list) -> list[tuple]:
    return [request.args for request in requests]


def _first(stops: Sequence[str], text: str) -> int | None:
    """Where the first of the stop texts begins; None if there is none."""
    places = [text.index(stop) for stop in stops if stop in text]
    return min(places, default=None)


def _metrics(values: Mapping[str, object]) -> dict[str, tuple[float, float | None]]:
    """The numbers of a task from the harness's "acc,none", "acc_stderr,none" and so on."""
    metrics = {}
    for key, value in values.items():
        name, comma, variant = key.partition(",")
        if not comma or name.endswith("_stderr") or not isinstance(value, (int, float)):
            continue
        error = values.get(f"{name}_stderr,{variant}")
        known = float(error) if isinstance(error, (int, float)) else None
        metrics[name if variant == "none" else f"{name} ({variant})"] = (float(value), known)
    return metrics


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"the harness has no such task (did you mean {near[0]}?)"
    return f"none of the harness's {len(known):,} tasks has this name; a task file ends in .yaml"
