"""Several corpora as one, each of them split and packed by itself.

    python -m lm.train corpus=mix \\
        corpus.parts.wiki.path=wiki.jsonl corpus.parts.plays.name=shakespeare \\
        corpus.weights.wiki=0.7 corpus.weights.plays=0.3

The weights say from which part a row of a training batch comes (lm/data/mixed_batches.py). They
change nothing here: text, tokenizer and validation split are those of all parts, each as long as it
is.
"""

import contextlib
import itertools
from collections.abc import Iterator

from lm.config import MixConfig
from lm.corpora import base
from lm.corpora.base import Corpus
from lm.settings.mix_parts import of_part
from lm.system.errors import ConfigError


class Mixed(Corpus):
    """The documents of one part after those of the other."""

    cfg: MixConfig

    def __init__(self, cfg: MixConfig):
        super().__init__(cfg)
        self.parts: dict[str, Corpus] = {}
        for name, part in cfg.part_configs().items():
            self.parts[name] = base.build(part)

    def documents(self) -> Iterator[str]:
        return itertools.chain.from_iterable(part.documents() for part in self.parts.values())


@contextlib.contextmanager
def naming(part: str) -> Iterator[None]:
    """What goes wrong with the text of a part names it; an empty name stands for the only one."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        if not part:
            raise
        raise ConfigError(of_part(part, error)) from None
