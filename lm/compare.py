"""Is B better than A? Runs of both, seed by seed in turns, until that is clear.

python -m lm.compare b="optimizer.lr=0.01" train.steps=300
python -m lm.compare a="model=gru" b="model=mlp" pairs=8 out=gru_or_mlp

a= and b= hold the settings of either, all other words those of both. Prints one
JSON line, and adds it to outputs/compare.jsonl. The same command with out= goes on.
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("compare")

import contextlib
import json
import math
import re
import secrets
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from lm import config
from lm.launch import cli, compose, jobs, logs
from lm.report import sequential
from lm.settings.commands import CompareConfig
from lm.system import files, signals, terminal
from lm.system.errors import ConfigError, DamagedError
from lm.system.streams import check_place, print_line
from lm.system.text import shell_word
from lm.train import run_job

LOG = Path("outputs/compare.jsonl")  # a line for each comparison that ended
RESULT = "compare.json"


def command(cfg: CompareConfig) -> None:
    """Train pairs of runs until one is better, or the budget is spent; print what was found."""
    words = {"a": _words(cfg.a, "a"), "b": _words(cfg.b, "b")}
    _check(words, cfg.overrides)
    bounds = sequential.bounds(cfg.pairs)
    out = Path(cfg.out) if cfg.out else _new_folder()
    _check_folder(out)
    logs.to_terminal(instead=True)
    start = time.monotonic()
    differences: list[float] = []
    verdict = ""
    print_line(f"compare    at most {cfg.pairs} pairs of runs in {out}, each with its train.log")
    while len(differences) < cfg.pairs and not verdict:
        if differences and cfg.seconds and time.monotonic() - start >= cfg.seconds:
            break
        seed = len(differences)
        scores = {}
        for side in "ab":
            with _gone_if_empty(out):
                scores[side] = _score(side, seed, [*cfg.overrides, *words[side]], out)
        differences.append(scores["b"] - scores["a"])
        judged = sequential.judge(differences, bounds)
        verdict = judged.verdict
        print_line(_line(seed, cfg.pairs, scores, judged))
    found = _result(cfg, differences, judged, time.monotonic() - start, out)
    text = json.dumps(found)
    files.atomic_write(out / RESULT, text + "\n")
    print_line(text)  # before the log: that it cannot be written hides no result
    files.make_folder(LOG.parent)
    files.append_line(LOG, text)


def _words(text: str, side: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{side}={text}: {error}") from None
    try:
        _check_words(words)
    except ConfigError as error:
        raise ConfigError(f"{side}={text}: {error}") from None
    return words


def _check_words(words: list[str]) -> None:
    """ConfigError for what is no setting of a run, or differs from pair to pair."""
    for word in words:
        key = word.partition("=")[0].lstrip("+~")
        if key == "seed":
            raise ConfigError(f"leave out {word}; the pairs have the seeds 0, 1, ...")
        if key.startswith("hydra"):
            raise ConfigError(f"leave out {word}; out= is the folder of the runs, one by one")
        if word.startswith("-"):
            raise ConfigError(f"leave out {word}; settings are key=value")


def _check(words: dict[str, list[str]], common: list[str]) -> None:
    """ConfigError unless both sides can be trained and compared."""
    _check_words(common)
    a, b = (compose.compose_run([*common, *words[side]]) for side in "ab")
    if a == b:
        raise ConfigError(
            "A and B have the same settings: give b='KEY=VALUE ...', and a= if need be"
        )
    if a.corpus != b.corpus:
        raise ConfigError("A and B have different texts: give corpus settings outside of a= and b=")
    if a.unresolved() or b.unresolved():
        from lm.optim import horizon  # with torch, once all else is known to be good

        a, b = horizon.resolved(a), horizon.resolved(b)
    for key in config.BUDGETS:
        there, here = (config.flat(side)[key] for side in (a, b))
        if there != here:
            raise ConfigError(
                f"A and B have different budgets: {key} is {there} and {here}; give one number "
                "outside of a= and b="
            )
    per_step = [cfg.train.batch_size * cfg.model.context_len for cfg in (a, b)]
    if per_step[0] != per_step[1] and not a.train.budgets():
        raise ConfigError(
            f"A and B have different budgets: {a.train.steps} steps of {per_step[0]:,} and of "
            f"{per_step[1]:,} tokens; give train.tokens=N outside of a= and b="
        )


def _new_folder() -> Path:
    """One that no comparison has which starts at the same moment."""
    return Path(time.strftime("outputs/compare/%Y-%m-%d_%H-%M-%S-") + secrets.token_hex(2))


def _check_folder(out: Path) -> None:
    """ConfigError for a folder that holds anything but a comparison."""
    check_place(str(out))
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"out={out} is a file: give a new folder")
    if (out / RESULT).exists() and not _is_result(out / RESULT):
        raise ConfigError(f"out={out} holds a {RESULT} that lm did not write: give a new folder")
    for path in out.iterdir():
        if path.name != RESULT and not re.fullmatch(r"[ab]_seed\d+", path.name):
            raise ConfigError(
                f"out={out} holds {path.name}, no part of a comparison: give a new one"
            )


def _is_result(path: Path) -> bool:
    """Whether a file is what a comparison wrote."""
    try:
        found = files.read_json(path)
    except DamagedError:
        return False
    return isinstance(found, dict) and {"difference", "verdict", "pairs"} <= found.keys()


def _score(side: str, seed: int, words: list[str], out: Path) -> float:
    """The best val/bpb of one run: trained now, or known from an earlier start."""
    words = [*words, f"seed={seed}"]
    folder = out / f"{side}_seed{seed}"
    arm = terminal.Arm(f"{side.upper()} seed {seed}", "", str(folder), has_bar=True)
    with terminal.shown_of_arm(arm):
        try:
            score = run_job(jobs.Job(compose.compose_run(words), folder, words))
        except signals.Stopped:
            word = shell_word(f"out={out}")
            with contextlib.suppress(OSError):  # the terminal may be gone
                print_line(f"stopped: the same command with {word} goes on")
            raise
    if not math.isfinite(score):
        raise ValueError(f"{folder}: the score is not a number, so there is nothing to compare")
    return score


@contextlib.contextmanager
def _gone_if_empty(out: Path) -> Iterator[None]:
    """Where a run cannot even begin, its new folder does not stay."""
    was_there = out.exists()
    try:
        yield
    except BaseException:
        if not was_there:
            with contextlib.suppress(OSError):  # it holds something
                out.rmdir()
        raise


def _line(seed: int, n_pairs: int, scores: dict[str, float], judged: sequential.Judged) -> str:
    text = f"pair {seed + 1} of {n_pairs}  A {scores['a']:.4f}  B {scores['b']:.4f}"
    text += f"  B - A {judged.difference:+.4f} bpb"
    if math.isfinite(judged.low):
        text += f", from {judged.low:+.4f} to {judged.high:+.4f}"
    return text


def _result(
    cfg: CompareConfig,
    differences: list[float],
    judged: sequential.Judged,
    seconds: float,
    out: Path,
) -> dict[str, object]:
    """What is printed and kept: the difference B - A in bits per byte, and who is better."""
    interval = None
    if math.isfinite(judged.low):
        interval = [round(judged.low, 6), round(judged.high, 6)]
    return {
        "difference": round(judged.difference, 6),
        "interval": interval,
        "verdict": {"a": "A is better", "b": "B is better", "": "not decided"}[judged.verdict],
        "pairs": len(differences),
        "runs": 2 * len(differences),
        "seconds": round(seconds, 1),
        "a": cfg.a,
        "b": cfg.b,
        "both": " ".join(cfg.overrides),
        "out": str(out),
    }


if __name__ == "__main__":
    cli.main(CompareConfig, command)
