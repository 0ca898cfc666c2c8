"""The rows of a .parquet file, one column of it, a few at a time (extra `data`: pyarrow).

for row in rows(open("part-0.parquet", "rb"), Path("part-0.parquet"), "text"):
    row                                 # {"text": "..."}; for a field a.b {"a": {"b": "..."}}
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lm.system.errors import ConfigError
from lm.system.packed import unpacked_limit

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData, ParquetFile

ROWS = 256  # in memory at a time


def rows(
    file: BinaryIO, path: Path, field: str, groups: Sequence[int] | None = None
) -> Iterator[dict[str, object]]:
    """Each row as a mapping with the column `field`, or for a.b with b in a; of all groups of
    rows, or of those in `groups`.

    Raises ConfigError without pyarrow, and ValueError for a file that is damaged, that has no such
    column, or that unpacks to more than a packed file may.
    """
    with _opened(file, path, field) as content:
        for batch in content.iter_batches(batch_size=ROWS, row_groups=groups, columns=[field]):
            yield from batch.to_pylist()


def group_sizes(file: BinaryIO, path: Path, field: str) -> list[int]:
    """How many bytes of the column each group of rows unpacks to. Raises as `rows` does."""
    with _opened(file, path, field) as content:
        sizes = []
        for i in range(content.metadata.num_row_groups):
            group = content.metadata.row_group(i)
            columns = [group.column(j) for j in range(group.num_columns)]
            sizes.append(
                sum(
                    column.total_uncompressed_size
                    for column in columns
                    if _is_in(column.path_in_schema, field)
                )
            )
        return sizes


@contextmanager
def _opened(file: BinaryIO, path: Path, field: str) -> Iterator["ParquetFile"]:
    """The content of a file that has the column; what is wrong with it is one error."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(f"{path}: .parquet needs pyarrow: pip install pyarrow") from None
    try:
        content = parquet.ParquetFile(file)
        known = [content.schema.column(i).path for i in range(len(content.schema))]
        if not any(_is_in(name, field) for name in known):
            listed = f"its columns are {', '.join(known)}"[:200]
            raise ValueError(f"{path} has no column {field}: {listed}; give corpus.field")
        _check_size(content.metadata, path)
        yield content
    except (pyarrow.ArrowException, OSError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"{path} is not an intact .parquet file: {what[:300]}") from None


def _is_in(name: str, field: str) -> bool:
    """Whether a column of this name is the field, or one inside it."""
    return name == field or name.startswith(f"{field}.")


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
