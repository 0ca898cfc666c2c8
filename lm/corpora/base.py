"""What a corpus is, and how its text is divided into what a model learns and what it is tested on.

    kind, parts = split(corpus.documents(), val_fraction=0.1)   # ("document", train/val pairs)

A corpus is a subclass of Corpus that takes its dataclass of lm/config.py: see pydocs.py.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

MANY = 100  # documents from which on whole documents are dealt out; fewer: one text is cut
EMPTY = "corpus {name} holds no text: its documents are empty, or there are none; give some text"


class Corpus:
    """A body of text in documents, the same at every reading."""

    def __init__(self, cfg: Any):
        self.cfg = cfg

    def source(self) -> dict[str, Any]:
        """JSON values that change whenever the text does, cheap enough for every run."""
        raise NotImplementedError

    def documents(self) -> Iterator[str]:
        """The texts in a fixed order, streamed; each call starts again."""
        raise NotImplementedError

    def facts(self) -> dict[str, float]:
        """What is known about the text beforehand, as `floor_bpb`, a perfect model's score."""
        return {}


def split(
    documents: Iterable[str], val_fraction: float, name: str = "given"
) -> tuple[str, Iterator[tuple[str, str]]]:
    """How the text was divided, and each part of it in order as ("train" or "val", text).

    "document": from MANY documents on, each goes where the hash of its text says. So copies never
    lie on both sides, and a document keeps its side when others are added.
    "position": of fewer, the last `val_fraction` of the characters is val, and the document in
    which that begins is cut. One book is tested on its end, as is usual for shakespeare.
    Empty documents are dropped. At most MANY documents are held at a time. Raises ValueError
    if there is no text, and, at the end of the iterator, if a side received none.
    """
    stream = (text for text in documents if text)
    first = list(islice(stream, MANY))
    if not first:
        raise ValueError(EMPTY.format(name=name))
    if len(first) < MANY:
        return "position", _by_position(first, val_fraction, name)
    return "document", _by_document(chain(first, stream), val_fraction, name)


def _by_document(
    documents: Iterable[str], val_fraction: float, name: str
) -> Iterator[tuple[str, str]]:
    n = {"train": 0, "val": 0}
    for text in documents:
        side = "val" if _uniform(text) < val_fraction else "train"
        n[side] += 1
        yield side, text
    for side, count in n.items():
        if not count:
            raise ValueError(
                f"corpus.val_fraction={val_fraction} leaves no document for {side} out of the "
                f"{sum(n.values()):,} in corpus {name}: change it, or give more different documents"
            )


def _by_position(texts: list[str], val_fraction: float, name: str) -> Iterator[tuple[str, str]]:
    n = sum(map(len, texts))
    cut = int(round(n * (1 - val_fraction), 6))  # rounded, so that 10 * (1 - 0.9) is 1
    if not 0 < cut < n:
        raise ValueError(
            f"corpus {name} has {n} characters, too few to keep {val_fraction} of them for val: "
            "give more text, or change corpus.val_fraction"
        )
    return _cut(texts, cut)


def _cut(texts: list[str], cut: int) -> Iterator[tuple[str, str]]:
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
