"""Pack the shards of a text of any size, as training would while it goes on.

python -m lm.pack corpus=shards corpus.path=web tokenizer.vocab_size=8192
python -m lm.pack first=3 every=64 corpus=shards corpus.path=web  # one of 64

Each shard is packed by itself and once: several of these commands, on one machine or on many that
share LM_CACHE_DIR, divide the work, and lm.train with the same corpus and tokenizer finds it done.
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("pack")

from lm.config import ShardsConfig
from lm.data import pipeline
from lm.launch import cli, compose
from lm.settings.commands import PackConfig
from lm.system.errors import ConfigError
from lm.system.streams import print_line


def command(cfg: PackConfig) -> None:
    run = compose.compose_run(cfg.overrides)
    if not isinstance(run.corpus, ShardsConfig):
        raise ConfigError(
            f"corpus={run.corpus.name} has no shards: give corpus=shards corpus.path=FOLDER"
        )
    shards = pipeline.prepare(run).shards
    assert shards is not None, "those of a ShardsConfig"
    if cfg.every == 1 and cfg.first >= len(shards) > 0:
        raise ConfigError(f"first={cfg.first}: there are {len(shards)} shards, from 0 on")
    for number in range(cfg.first, len(shards), cfg.every):
        seconds = shards.pack(number)
        origin = "reused" if seconds is None else f"built in {seconds:.1f} s"
        size = f"{len(shards.ids(number)):,} tokens"
        print_line(f"{'shard':<10} {f'{number} of {len(shards)}':<12} {origin:<16} {size}")


if __name__ == "__main__":
    cli.main(PackConfig, command)
