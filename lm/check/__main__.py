"""Can this model, or this run, be trusted? A report to read; exit code 1 if something is wrong.

    python -m lm.check model=transformer model.n_layer=2
    python -m lm.check import=mine --config-dir conf model=mine          # your own
    python -m lm.check run=latest                                             # what training did
    python -m lm.check transfer model=transformer                         # from narrow to wide

The checks of a model are in conformance.py, the rules about a run in doctor.py, those of transfer
in transfer.py.
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("check")

import logging
import sys
import time

from rich.markup import escape

from lm import config, metrics
from lm.check import conformance, doctor
from lm.check.bench import Bench
from lm.config import Config
from lm.data import pipeline
from lm.data.batches import Batches
from lm.launch import cli, compose
from lm.models.base import LanguageModel
from lm.optim import footprint, horizon
from lm.optim.clip import clip_gradients
from lm.optim.contract import build_optimizers
from lm.optim.schedule import set_rates, update_scale
from lm.record.find import find_run
from lm.scoring import evaluate
from lm.settings.commands import CheckConfig, TransferConfig
from lm.system import devices, memory
from lm.system.console import Console
from lm.system.errors import ConfigError
from lm.system.text import printable_line

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


def print_line(console: Console, name: str, verdict: str, detail: str) -> None:
    console.print(f"[{MARKS[verdict]}]{verdict:<8}[/] {escape(name):<14} {escape(detail)}")


def check_run(cfg: CheckConfig, console: Console) -> bool:
    """Print the doctor's findings about a run; True if one says that it cannot be trusted."""
    run_path = find_run(cfg.run or "latest")
    name = printable_line(str(run_path))
    console.print(f"run {escape(name)}, checkpoint {escape(cfg.checkpoint)}\n")
    findings = doctor.examine(run_path, cfg.checkpoint)
    for finding in findings:
        print_line(console, finding.name, finding.verdict, finding.detail)
        if finding.advice:
            console.print(f"{'':<24}[dim]{escape(finding.advice)}[/]")
    return any(finding.verdict == "failed" for finding in findings)


def check_model(cfg: Config, settings: CheckConfig, console: Console) -> bool:
    """Print the checks of a model; True if one failed."""
    cfg = horizon.resolved(cfg)
    device = devices.choose(settings.device)
    logging.getLogger().setLevel(logging.WARNING)
    corpus = pipeline.prepare_corpus(config.GrammarConfig())
    tokenizer_cfg = config.BPEConfig(vocab_size=GRAMMAR_VOCAB)
    tokenizer = pipeline.prepare_tokenizer(tokenizer_cfg, corpus)
    prepared = pipeline.pack(corpus, tokenizer)
    bench = Bench(cfg, tokenizer.vocab_size, device, prepared.train)
    shapes = memory.skeleton(lambda: cfg.model.build(tokenizer.vocab_size))
    footprint.check(shapes, cfg, device)
    with footprint.named(shapes, cfg, device):
        n_params = bench.model().n_params()
    console.print(
        f"model {escape(cfg.model.name)}, {n_params:,} parameters "
        f"at {tokenizer.vocab_size} tokens, on {device}\n"
    )
    n_failed = 0
    for name, verdict, detail in conformance.examine(bench):
        print_line(console, name, verdict, detail)
        if verdict == "failed":
            n_failed += 1
    if settings.grammar and not n_failed:
        verdict, detail = check_grammar(bench, prepared, settings.steps)
        print_line(console, "grammar", verdict, detail)
    if n_failed:
        console.print(f"\n{n_failed} of {len(conformance.CHECKS)} checks failed")
    else:
        console.print("\nall is well")
    return n_failed > 0


def check_grammar(bench: Bench, prepared: pipeline.Prepared, steps: int) -> tuple[str, str]:
    """Verdict and detail: how near training comes to the exact entropy of the grammar's text.

    A score well below the entropy is a failure: the model must have seen what it predicts.
    """
    model = bench.model()
    if model.trainable:
        seconds = _train(bench, model, prepared, steps)
        how = f"after {steps} steps ({seconds:.0f} s)"
    else:
        how = "from counts"
    bpb = evaluate(model, prepared.val, prepared.tokenizer.token_lengths())["bpb"]
    floor = prepared.facts["floor_bpb"]
    text = f"{bpb:.4f} bits a byte {how}, the exact floor is {floor:.4f}: {bpb - floor:.4f} above"
    return ("ok" if bpb > floor - 0.02 else "failed"), text


def _train(bench: Bench, model: LanguageModel, prepared: pipeline.Prepared, steps: int) -> float:
    """Train on the grammar with the configuration's optimizer and schedule; seconds it took."""
    cfg = bench.cfg
    start = time.perf_counter()
    optimizers = build_optimizers(cfg.optimizer, model)
    batches = Batches(prepared.train, cfg.train.batch_size, model.context_len, cfg.seed)
    model.train()
    for step in range(steps):
        set_rates(optimizers, update_scale(cfg.schedule, step / steps, (step + 1) / steps))
        x, y = batches[step]
        loss = metrics.next_token_loss(model(x.to(bench.device)), y.to(bench.device))
        loss.backward()
        clip_gradients(model.parameters(), cfg.train.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    return time.perf_counter() - start


def check_transfer(cfg: TransferConfig) -> None:
    from lm.check import transfer  # loads matplotlib, which no other check needs

    transfer.command(cfg)


def main() -> None:
    """Check a model or a run, or with the word `transfer` what carries over between widths."""
    if sys.argv[1:2] == ["transfer"]:
        del sys.argv[1]  # cli.main reads the settings from the rest
        cli.main(TransferConfig, check_transfer)
    else:
        cli.main(CheckConfig, command)


if __name__ == "__main__":
    main()
