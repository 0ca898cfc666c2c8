"""What a corpus is, and how its text is divided into a training and a validation split.

    split_by, parts = split(corpus.documents(), val_fraction=0.1)
    next(parts)                                 # ("train", "The \"assert\" statement\n...")

A corpus is a subclass of Corpus that takes its dataclass of lm/config.py: see pydocs.py.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

from lm.config import CorpusConfig
from lm.system.errors import ConfigError


class TooShortError(ValueError):
    """A text has too little for one of its splits."""


class NoTextError(ValueError):
    """A corpus has no document, or only empty ones."""


MANY = 100  # from so many documents on, whole documents are dealt out; below, the text is cut


class Corpus:
    """A body of text in documents, the same at every reading."""

    def __init__(self, cfg: CorpusConfig):
        self.cfg = cfg

    def has_tails(self) -> bool:
        """Whether the few documents it has are cut one by one, not as one text: see `split`."""
        return False

    def source(self) -> Mapping[str, object]:
        """JSON values that change whenever the text does; cheap enough to compute in every run."""
        raise self._lacking("source")

    def documents(self) -> Iterator[str]:
        """The texts in a fixed order, streamed; each call starts again."""
        raise self._lacking("documents")

    def _lacking(self, method: str) -> ConfigError:
        name = type(self).__name__
        return ConfigError(f"corpus={self.cfg.name}: {name} has no method {method}()")

    def facts(self) -> dict[str, float]:
        """What is known about the text beforehand, such as `floor_bpb`, a perfect model's score."""
        return {}


def build(cfg: CorpusConfig) -> Corpus:
    """The corpus of a configuration; ConfigError where one's own is not what a Corpus is."""
    corpus = cfg.build()
    if not isinstance(corpus, Corpus):
        kind = type(corpus).__name__
        raise ConfigError(f"corpus={cfg.name}: {cfg.builds} gave a {kind}: give a Corpus")
    return corpus


def split(
    documents: Iterable[str],
    val_fraction: float,
    name: str = "given",
    root_of: Mapping[int, int] | None = None,
    tails: bool = False,
) -> tuple[str, Iterator[tuple[str, str]]]:
    """How the text was divided, and its parts in order as pairs of "train" or "val" and a text.

    "document": from MANY documents on, the hash of its text decides the split of each. So copies
    are never in both splits, and a document keeps its split when others are added.
    "position": with fewer documents, the last `val_fraction` of the characters is val, and the
    document in which it begins is cut. One book is tested on its end, as is usual for shakespeare.
    "tails": the same of each document by itself, where `tails` asks for it. The last of several
    files may be of another kind than all others; the ends of all are of every kind.

    `root_of` gives documents that belong together the number of the first of them: they get its
    split. A text that is cut at a position cannot keep them together: ValueError.

    Empty documents are dropped, and not counted. At most MANY documents are in memory at a time.
    Raises ValueError if there is no text, and, at the end of the iterator, if a split received
    none. `name` is the corpus's, for messages.
    """
    stream = (text for text in documents if _is_text(text, name))
    first = list(itertools.islice(stream, MANY))
    if not first:
        raise NoTextError(
            f"corpus {name} holds no text: its documents are empty, or there are none; "
            "give some text"
        )
    root_of = root_of or {}
    if len(first) < MANY:
        if root_of:
            raise ValueError(
                f"corpus.near_duplicates=together: {len(root_of)} of the {len(first)} documents in "
                f"corpus {name} repeat others, and fewer than {MANY} are cut at a position, not "
                "dealt out: give drop or keep"
            )
        if tails and len(first) > 1:
            return "tails", _by_tails(first, val_fraction, name)
        return "position", _by_position(first, val_fraction, name)
    parts = _by_document(itertools.chain(first, stream), val_fraction, name, root_of)
    return "document", parts


def _is_text(document: str, name: str) -> bool:
    """Whether there is anything in a document; ValueError where it is no text."""
    if not isinstance(document, str):
        kind = type(document).__name__
        raise ValueError(f"corpus {name} gave a document that is a {kind}: give texts (str)")
    return document != ""


def _by_document(
    documents: Iterable[str], val_fraction: float, name: str, root_of: Mapping[int, int]
) -> Iterator[tuple[str, str]]:
    counts = {"train": 0, "val": 0}
    roots = set(root_of.values())
    split_of: dict[int, str] = {}  # of the roots
    for number, text in enumerate(documents):
        if number in root_of:
            split = split_of[root_of[number]]
        else:
            split = "val" if _uniform(text) < val_fraction else "train"
        if number in roots:
            split_of[number] = split
        counts[split] += 1
        yield split, text
    total = sum(counts.values())
    for split, count in counts.items():
        if count == 0:
            raise TooShortError(
                f"corpus.val_fraction={val_fraction} leaves no document for {split} out of the "
                f"{total:,} in corpus {name}: change it, or give more different documents"
            )


def _by_position(texts: list[str], val_fraction: float, name: str) -> Iterator[tuple[str, str]]:
    n = sum(map(len, texts))
    cut = int(round(n * (1 - val_fraction), 6))  # rounded, so that 10 * (1 - 0.9) is 1
    if not 0 < cut < n:
        raise TooShortError(
            f"corpus {name} has {n} characters, too few to keep {val_fraction} of them for val: "
            "give more text, or change corpus.val_fraction"
        )
    return _cut(texts, cut)


def _by_tails(texts: list[str], val_fraction: float, name: str) -> Iterator[tuple[str, str]]:
    found = []
    for text in texts:
        cut = math.ceil(round(len(text) * (1 - val_fraction), 6))
        found += [(split, part) for split, part in _cut([text], cut)]
    if {split for split, _ in found} != {"train", "val"}:
        raise TooShortError(
            f"each of the {len(texts)} documents in corpus {name} is too short to keep "
            f"{val_fraction} of it for val: give more text, or change corpus.val_fraction"
        )
    return iter(found)


def _cut(texts: list[str], cut: int) -> Iterator[tuple[str, str]]:
    """The first `cut` characters of all texts as train, the rest as val."""
    for text in texts:
        if cut > 0:
            yield "train", text[:cut]
        if cut < len(text):
            yield "val", text[max(cut, 0) :]
        cut -= len(text)


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on nothing but the text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
