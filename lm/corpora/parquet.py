"""The rows of a .parquet file, one column of it, a few at a time (extra `data`: pyarrow).

for row in rows(open("part-0.parquet", "rb"), Path("part-0.parquet"), "text"):
    row                                 # {"text": "..."}; for a field a.b {"a": {"b": "..."}}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lm.system.errors import ConfigError
from lm.system.packed import unpacked_limit

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

ROWS = 256  # in memory at a time


def rows(file: BinaryIO, path: Path, field: str) -> Iterator[dict[str, object]]:
    """Each row as a mapping with the column `field`, or for a.b with b in a.

    Raises ConfigError without pyarrow, and ValueError for a file that is damaged, that has no such
    column, or that unpacks to more than a packed file may.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(f"{path}: .parquet needs pyarrow: pip install pyarrow") from None
    try:
        content = parquet.ParquetFile(file)
        known = [content.schema.column(i).path for i in range(len(content.schema))]
        if not any(name == field or name.startswith(f"{field}.") for name in known):
            listed = f"its columns are {', '.join(known)}"[:200]
            raise ValueError(f"{path} has no column {field}: {listed}; give corpus.field")
        _check_size(content.metadata, path)
        for batch in content.iter_batches(batch_size=ROWS, columns=[field]):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"{path} is not an intact .parquet file: {what[:300]}") from None


def _check_size(metadata: "FileMetaData", path: Path) -> None:
    """ValueError for a file with a group of rows that is too large to unpack."""
    limit = unpacked_limit(path)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size for group in groups), default=0)
    if largest > limit:
        raise ValueError(
            f"{path} has a group of rows of {largest:,} bytes, over {limit:,}, which a file of its "
            "size may unpack to: write it anew in smaller groups"
        )
