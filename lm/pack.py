"""Pack the shards of a text of any size, as training would while it goes on.

python -m lm.pack corpus=shards corpus.path=web tokenizer.vocab_size=8192
python -m lm.pack first=3 every=64 corpus=shards corpus.path=web  # one of 64
python -m lm.pack -m every=8 hydra/launcher=local corpus=shards corpus.path=my

Each shard is packed by itself and once: several of these commands, on one machine or on many that
share LM_CACHE_DIR, divide the work, and lm.train with the same corpus and tokenizer finds it done.
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("pack")

import functools
import sys

from lm.config import Config, ShardsConfig
from lm.data import pipeline
from lm.launch import cli, compose, spread
from lm.settings.commands import PackConfig
from lm.system.errors import ConfigError
from lm.system.streams import print_line


def command(cfg: PackConfig) -> None:
    run = compose.compose_run(cfg.overrides)
    if not isinstance(run.corpus, ShardsConfig):
        raise ConfigError(
            f"corpus={run.corpus.name} has no shards: give corpus=shards corpus.path=FOLDER"
        )
    if not spread.is_asked(cfg.overrides):
        pack(run, cfg.first, cfg.every)
        return
    if cfg.first:
        raise ConfigError(
            f"first={cfg.first} beside -m, which starts all {cfg.every}: leave it out"
        )
    failures = spread.spread(cfg.overrides, cfg.every, functools.partial(job, cfg.every))
    for failure in failures:
        print_line(failure, to_stderr=True)
    if failures:
        print_line(
            f"{len(failures)} of {cfg.every} jobs failed; the same command goes on", to_stderr=True
        )
        sys.exit(1)


def pack(run: Config, first: int, every: int) -> None:
    """Pack shard number `first`, then each further one whose number is `every` more."""
    shards = pipeline.prepare(run).shards
    assert shards is not None, "those of a ShardsConfig"
    if every == 1 and first >= len(shards) > 0:
        raise ConfigError(f"first={first}: there are {len(shards)} shards, from 0 on")
    for number in range(first, len(shards), every):
        seconds = shards.pack(number)
        origin = "reused" if seconds is None else f"built in {seconds:.1f} s"
        size = f"{len(shards.ids(number)):,} tokens"
        print_line(f"{'shard':<10} {f'{number} of {len(shards)}':<12} {origin:<16} {size}")
        sys.stdout.flush()  # into a file too; and a launcher may end its processes by force


def job(every: int, run: Config, first: int) -> str:
    """One of the `every` jobs of -m: its shards; what went wrong, in one line."""
    try:
        pack(run, first, every)
    except (ValueError, OSError) as error:
        return f"first={first} every={every}: {error}"
    return ""


if __name__ == "__main__":
    cli.main(PackConfig, command)
