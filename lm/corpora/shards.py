"""Files of any size, of which training needs a part to begin: the others follow in shards.

    python -m lm.train corpus=shards corpus.path=web corpus.field=body

    corpus = Shards(cfg)
    corpus.documents()              # of the first part, which is split and packed as any corpus
    list(corpus.shard(3))           # the documents of a shard, without those of the first part

The files are cut into units (units.py), and these are put into an order that depends on their names
alone: so a shard, a few units in turn, has text of all places. The first part has the beginnings
of FIRST_UNITS of them. All this is known from sizes, before any text is read.
"""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

from lm.config import ShardsConfig
from lm.corpora.files import Files
from lm.corpora.formats import Reader, format_of, raised_rules
from lm.corpora.units import Unit, documents, units
from lm.system import foreign

FIRST_UNITS = 16  # of which the first part has the beginnings
RULES = 2  # raise it when the code here or in units.py comes to give other shards
MB = 1_000_000
SAMPLES = 4  # stretches of a file that tell it from others
SAMPLE_BYTES = 1 << 14


class Shards(Files):
    """The first part of the user's files as a corpus, and the shards that follow it."""

    cfg: ShardsConfig

    def has_tails(self) -> bool:
        return True  # of few documents each is cut, as they are of many places

    def source(self) -> dict[str, object]:
        kinds = map(format_of, self.files)
        return {
            "name": "shards",
            "field": self.cfg.field,
            "errors": self.cfg.errors,
            "sizes": [self.cfg.shard_mb, self.cfg.first_mb],
            "rules": [RULES, max((kind.since for kind in kinds if kind), default=1)],
            "files": [self._about(path) for path in self.files],
        }

    @functools.cached_property
    def files(self) -> list[Path]:
        return self.paths(aloud=True)

    @functools.cached_property
    def units(self) -> list[Unit]:
        """All units in their order."""
        found = []
        for number, path in enumerate(self.states):  # noted first, so that a later change is seen
            for unit in units(path, self.cfg.shard_mb * MB, self.cfg.field):
                name = f"{number} {path.name} {unit.begin}"  # which may be no UTF-8
                place = hashlib.blake2b(name.encode("utf-8", "surrogateescape")).digest()
                found.append((place, unit))
        return [unit for _, unit in sorted(found)]

    @functools.cached_property
    def shards(self) -> list[list[int]]:
        """The units of each shard, by their number, but those that the first part has whole."""
        found = []
        shard: list[int] = []
        n_bytes = 0
        for number, unit in enumerate(self.units):
            if self._is_all_first(number):
                continue
            shard.append(number)
            n_bytes += unit.n_bytes
            if n_bytes >= self.cfg.shard_mb * MB:
                found.append(shard)
                shard = []
                n_bytes = 0
        return found + [shard] * bool(shard)

    @functools.cached_property
    def states(self) -> dict[Path, tuple[int, int]]:
        """Size and time of each file when this corpus was made of it."""
        return {path: _state(path) for path in self.files}

    def documents(self) -> Iterator[str]:
        for number, _ in enumerate(self.units[:FIRST_UNITS]):
            for text, is_first in self._read(number):
                if not is_first:
                    break
                yield text

    def shard(self, number: int) -> Iterator[str]:
        """The documents of a shard, without those of the first part."""
        for unit in self.shards[number]:
            for text, is_first in self._read(unit):
                if not is_first:
                    yield text

    def _read(self, number: int) -> Iterator[tuple[str, bool]]:
        """The documents of a unit, and whether each belongs to the first part.

        Raises ValueError where the file is another by then.
        """
        is_all_first = self._is_all_first(number)
        left = self._share if number < FIRST_UNITS else 0  # bytes of it that the first part takes
        path = self.units[number].path
        before = self.states[path]
        for text in documents(self.units[number], Reader(self.cfg.field, self.cfg.errors)):
            yield text, is_all_first or left > 0
            left -= len(text.encode("utf-8", "replace")) if left > 0 else 0
        if _state(path) != before:
            raise ValueError(
                f"{path} was written to since training began to read it: start anew with a copy "
                "that stays as it is"
            )

    def _is_all_first(self, number: int) -> bool:
        return number < FIRST_UNITS and self.units[number].n_bytes <= self._share

    @functools.cached_property
    def _share(self) -> int:
        """Bytes of text that the first part has of each of its units."""
        return self.cfg.first_mb * MB // min(FIRST_UNITS, len(self.units))

    @functools.cached_property
    def n_bytes(self) -> int:
        """Of the text of all units, about."""
        return sum(unit.n_bytes for unit in self.units)

    @functools.cached_property
    def n_first_bytes(self) -> int:
        """Of the text of the first part, about."""
        first = self.units[:FIRST_UNITS]
        return max(1, sum(min(unit.n_bytes, self._share) for unit in first))

    def key(self, number: int) -> list[object]:
        """JSON values that change whenever the text of a shard does, or its files are written."""
        found: list[object] = []
        for unit in map(self.units.__getitem__, self.shards[number]):
            size, time = self.states[unit.path]
            kind = format_of(unit.path)
            since = kind.since if kind else 0
            of_file = [unit.path.name, since, size, time, self._sample(unit.path)]
            of_file += raised_rules(unit.path).values()
            found.append([*of_file, unit.begin, unit.end])
        first = [unit for unit in self.shards[number] if unit < FIRST_UNITS]
        return [RULES, self.cfg.field, self.cfg.errors, found, first, self._share]

    def _about(self, path: Path) -> dict[str, object]:
        about = {"name": path.name, "size": self.states[path][0], "sample": self._sample(path)}
        return about | raised_rules(path)

    def _sample(self, path: Path) -> str:
        return sample(path, *self.states[path])


def _state(path: Path) -> tuple[int, int]:
    """Size and time of a file; ValueError where it is gone."""
    try:
        status = path.stat()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


@functools.cache
def sample(path: Path, size: int, time: int) -> str:
    """A checksum of stretches of a file of this size and time, from its beginning to its end."""
    digest = hashlib.sha256()
    with foreign.open_plain(path, links=True) as file:
        last = max(0, size - SAMPLE_BYTES)
        for i in range(SAMPLES):
            file.seek(last * i // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
