"""Pack the shards of a text in another process, while this one trains.

    with packed_beside(shards): ...     # it goes through them from the first on

The process is a fresh interpreter: multiprocessing's spawn would run the caller's script again.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from lm import tokenizers
from lm.config import ShardsConfig
from lm.corpora.shards import Shards as Text
from lm.data.shards import Shards
from lm.system import files, store, streams

NICENESS = 10  # of the process that packs, so that training keeps its pace
MAX_NOTES = 3  # about shards that cannot be packed

# It reads all that it needs before the imports, which take seconds.
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "work = sys.stdin.buffer.read(int(sys.argv[2])); "
    "from lm.data import packing; packing.pack_all(work)"
)


@contextlib.contextmanager
def packed_beside(shards: Shards) -> Iterator[None]:
    """Inside, another process packs the shards from the first on. It ends with this one.

    It says which shards it cannot pack; training ends where it needs one of them.
    """
    if all(map(shards.is_packed, range(len(shards)))):
        yield
        return
    process = _start(shards)
    try:
        yield
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):  # what could not be sent to it
            if process.stdin:
                process.stdin.close()
        store.clear_leftovers(files.cache_dir())


def _start(shards: Shards) -> subprocess.Popen[bytes]:
    settings = dataclasses.asdict(shards.text.cfg)
    parts = (settings, str(shards.folder), shards.tokenizer.to_json(), shards.engine)
    work = json.dumps(parts).encode()
    path = json.dumps([folder or os.getcwd() for folder in sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, path, str(len(work))],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which ends the other
    )
    assert process.stdin is not None, "it is a pipe"
    with contextlib.suppress(OSError):  # it is dead already: training packs what it needs
        process.stdin.write(work)
        process.stdin.flush()
    return process


def pack_all(work: bytes) -> None:
    """Pack every shard, in a process of its own, which ends when its standard input does."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    settings, folder, tokenizer, engine = json.loads(work)
    text = Text(ShardsConfig(**settings))
    shards = Shards(text, Path(folder), tokenizers.from_json(tokenizer), engine)
    with contextlib.suppress(OSError, AttributeError):  # Windows has no such function
        os.nice(NICENESS)
    pack_those_left(shards)


def _end_with_input() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock would be held when the interpreter ends
    os._exit(1)


def pack_those_left(shards: Shards) -> None:
    """Pack what is not packed yet, and print which shards cannot be.

    Ends at an error of the system, such as a full disk, which others would meet too.
    """
    n_notes = 0
    for number in range(len(shards)):
        try:
            if not shards.is_packed(number):
                shards.pack(number)
        except (ValueError, OSError) as error:  # training ends with it, if it comes to that shard
            n_notes += 1
            if n_notes <= MAX_NOTES:
                which = f"shard {number} of {len(shards)}"
                streams.print_line(f"note: {which} cannot be packed: {error}", to_stderr=True)
            if isinstance(error, OSError):
                return
