"""Can this model, or this run, be trusted? A report to read; exit code 1 if something is wrong.

    python -m lm.check model=transformer model.n_layer=2
    python -m lm.check import=my_models.mine --config-dir conf model=mine     # one of your own
    python -m lm.check run=latest                                             # what training did

The promises of a model are in conformance.py, the findings about a run in doctor.py.
"""

import logging
import sys
import time

import torch
from rich.console import Console
from rich.markup import escape

from lm import config, data, metrics, pipeline
from lm.check import conformance, doctor
from lm.check.settings import CheckConfig
from lm.config import Config
from lm.evaluate import evaluate
from lm.launch import cli, compose
from lm.models.base import LanguageModel
from lm.record.find import find_run
from lm.system import device
from lm.system.errors import ConfigError

MARKS = {"ok": "green", "note": "cyan", "skipped": "dim", "look": "yellow", "failed": "bold red"}
GRAMMAR_VOCAB = 512


def command(cfg: CheckConfig) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if cfg.run and cfg.overrides:
        raise ConfigError(
            f"run={cfg.run} is a run and {cfg.overrides[0]} a setting of a model: give one of them"
        )
    if cfg.overrides:
        failed = check_model(compose.compose_run(cfg.overrides), cfg, console)
    else:
        failed = check_run(cfg, console)
    if failed:
        sys.exit(1)


def line(console: Console, name: str, verdict: str, detail: str) -> None:
    console.print(f"[{MARKS[verdict]}]{verdict:<8}[/] {escape(name):<14} {escape(detail)}")


def check_run(cfg: CheckConfig, console: Console) -> bool:
    run_path = find_run(cfg.run or "latest")
    console.print(f"run {escape(str(run_path))}, checkpoint {escape(cfg.checkpoint)}\n")
    findings = doctor.examine(run_path, cfg.checkpoint)
    for finding in findings:
        line(console, finding.name, finding.verdict, finding.detail)
        if finding.advice:
            console.print(f"{'':<24}[dim]{escape(finding.advice)}[/]")
    return any(finding.verdict == "failed" for finding in findings)


def check_model(cfg: Config, settings: CheckConfig, console: Console) -> bool:
    """Print the report of a model; True if it broke a promise."""
    where = device.device(settings.device)
    logging.getLogger().setLevel(logging.WARNING)
    corpus = config.GrammarConfig()
    tokenizer = config.BPEConfig(vocab_size=GRAMMAR_VOCAB)
    prepared = pipeline.pack(
        folder := pipeline.prepare_corpus(corpus), pipeline.prepare_tokenizer(tokenizer, folder)
    )
    V = prepared.tokenizer.vocab_size
    bench = conformance.Bench(cfg, V, where, prepared.train)
    size = bench.model().n_params()
    console.print(
        f"model {escape(cfg.model.name)}, {size:,} parameters at {V} tokens, on {where}\n"
    )
    bad = 0
    for name, verdict, detail in conformance.examine(bench):
        line(console, name, verdict, detail)
        bad += verdict == "failed"
    if settings.grammar and not bad:
        line(console, "grammar", *grammar(bench, prepared, settings.steps))
    console.print(f"\n{bad} of {len(conformance.CHECKS)} checks failed" if bad else "\nall is well")
    return bad > 0


def grammar(bench: conformance.Bench, prepared: pipeline.Prepared, steps: int) -> tuple[str, str]:
    """How near the model comes to the exact entropy of the grammar's sentences."""
    model = bench.model()
    seconds = _train(bench, model, prepared, steps) if model.trainable else 0.0
    lengths = prepared.tokenizer.token_lengths()
    bpb = evaluate(model, prepared.val, lengths)["bpb"]
    floor = prepared.facts["floor_bpb"]
    how = f"after {steps} steps ({seconds:.0f} s)" if model.trainable else "from counts"
    text = f"{bpb:.4f} bits a byte {how}, the exact floor is {floor:.4f}: {bpb - floor:.4f} above"
    return ("ok" if bpb > floor - 0.02 else "failed"), text  # below it, something leaks


def _train(
    bench: conformance.Bench, model: LanguageModel, prepared: pipeline.Prepared, steps: int
) -> float:
    """Train on the grammar with the configuration's optimizer and schedule; seconds it took."""
    cfg, start = bench.cfg, time.perf_counter()
    optimizers = cfg.optimizer.build(model)
    batches = data.Batches(prepared.train, cfg.train.batch_size, model.context_len, cfg.seed)
    model.train()
    for step in range(steps):
        scale = cfg.schedule.build(step / steps)
        x, y = batches[step]
        loss = metrics.next_token_loss(model(x.to(bench.device)), y.to(bench.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.train.clip or float("inf"))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * scale
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    return time.perf_counter() - start


if __name__ == "__main__":
    cli.main(CheckConfig, command)
