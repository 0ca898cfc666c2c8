"""What the JSON files hold that stages of the pipeline write: corpus.json and tokens.json.

    about = files.read_record(folder / "corpus.json", schemas.CorpusRecord)
    about.splits.val.n_bytes

The records of a run are in lm/record/schemas.py. Keys that a class does not name are allowed.
"""

from typing import Annotated, Any, Generic, TypeVar

import msgspec

T = TypeVar("T")
# Files are a stranger's: an integer beyond 64 bits would fail later, where it is computed with.
Int = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Number = Int | float


class Splits(msgspec.Struct, Generic[T]):
    """The same of the text to train on and of the text to validate on."""

    train: T
    val: T


class TextCounts(msgspec.Struct):
    n_documents: Int
    n_bytes: Int  # in UTF-8


class TokenCounts(msgspec.Struct):
    n_tokens: Int
    n_bytes: Int  # that these tokens decode to; special tokens have none
    n_documents: Int = 0


class Repeats(msgspec.Struct):
    """What was done with documents that repeat an earlier one (lm/corpora/near_duplicates.py)."""

    mode: str  # drop: left out; together: on the same side of the split as the earlier one
    n_documents: Int
    n_bytes: Int = 0  # of those left out


class SourceFile(msgspec.Struct):
    name: str


class Source(msgspec.Struct):
    files: list[SourceFile] = []


class PartRecord(msgspec.Struct):
    """What is in one part of a mixed text."""

    split_by: str
    splits: Splits[TextCounts]
    near_duplicates: Repeats | None = None


class CorpusRecord(msgspec.Struct):
    """corpus.json: what a prepared text was made from, and what is in it."""

    source: dict[str, Any]  # all settings that decide the text, and the checksums of its files
    split_by: str  # document; position: one may be cut in two; tails: all are; part: each by itself
    splits: Splits[TextCounts]
    sha256: Splits[str]
    facts: dict[str, float] = {}  # such as floor_bpb, the exact entropy where it is known
    near_duplicates: Repeats | None = None  # None: they were kept as they come
    parts: dict[str, PartRecord] = {}  # of a mix, in the order in which both splits hold them

    def __post_init__(self) -> None:
        self.file_names()  # refuses a source whose files are not what was written

    def file_names(self) -> list[str]:
        """The names of the files that the text was read from; empty for a generated one."""
        return [file.name for file in msgspec.convert(self.source, Source).files]


class Copied(msgspec.Struct):
    """How much of the validation split stands in the training split (lm/corpora/overlap.py)."""

    share: float  # of the spans, from 0 to 1
    span: Int  # tokens in a span


class TokensRecord(msgspec.Struct):
    """tokens.json: what the token files beside it mean."""

    dtype: str  # of an id: uint16 or uint32
    vocab_size: Int
    tokenizer: str  # its fingerprint
    corpus: str  # fingerprint of the text of both splits
    splits: Splits[TokenCounts]
    parts: dict[str, Splits[TokenCounts]] = {}  # of a mix, one after the other in the token files
