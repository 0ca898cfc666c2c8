"""Encode batches in other processes: fresh interpreters fed through pipes, so nothing is forked.

    for (ids, counts), marks in encode(tokenizer.to_json, batches, n_proc=2, dtype=np.uint16): ...

A fork would copy the locks of torch's threads, and multiprocessing's spawn would run the caller's
script again.
"""

import itertools
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, TypeAlias

import numpy as np

from lm.tokenizers.text import Batch, Mark, keep_pages

if TYPE_CHECKING:
    from lm.tokenizers.base import Tokenizer

_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lm.tokenizers import from_json, parallel; parallel.serve(from_json)"
)

Encoded: TypeAlias = tuple[np.ndarray, np.ndarray]  # what `Tokenizer.encode_batch` returns
Result: TypeAlias = tuple[Encoded, list[Mark]]


def encode(
    to_json: Callable[[], str],
    batches: Iterator[Batch],
    n_proc: int,
    dtype: type[np.unsignedinteger],
) -> Iterator[Result]:
    """What `Tokenizer.encode_batch` gives for each batch, in order, from n_proc processes; at most
    3 * n_proc batches are in memory. No process starts where there is no batch.

    Raises ValueError where a text cannot be encoded, RuntimeError where a process died.
    """
    first = list(itertools.islice(batches, 1))
    if not first:
        return
    idle: SimpleQueue[_Worker] = SimpleQueue()
    workers = [_Worker(to_json(), dtype) for _ in range(n_proc)]
    for worker in workers:
        idle.put(worker)

    def run(batch: Batch) -> Result:
        texts, marks = batch
        worker = idle.get()
        try:
            return worker.encode(texts, marks), marks
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(n_proc)
    pending: deque[Future[Result]] = deque()
    try:
        for batch in itertools.chain(first, batches):
            pending.append(pool.submit(run, batch))
            if len(pending) >= 3 * n_proc:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.stop()


class _Worker:
    """One child process. It is sent the tokenizer's JSON once, then for each batch two frames:
    bytes and offset of each text, and the texts. It answers with two: counts, and ids; or none, and
    an error's message.
    """

    def __init__(self, tokenizer_json: str, dtype: type[np.unsignedinteger]):
        self.dtype = np.dtype(dtype)
        path = json.dumps([folder or os.getcwd() for folder in sys.path])
        command = [sys.executable, "-c", _CHILD, path]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None and self.process.stdout is not None, "both are pipes"
        self.stdin = self.process.stdin
        self.stdout = self.process.stdout
        self.unsent_json: bytes | None = tokenizer_json.encode()

    def encode(self, texts: list[str], marks: list[Mark]) -> Encoded:
        # Sent by the thread that uses the worker first, so that all children start together.
        if self.unsent_json is not None:
            send(self.stdin, self.unsent_json)
            self.unsent_json = None
        raw = [text.encode("utf-8", "surrogatepass") for text in texts]
        sizes = [(len(data), offset) for data, (offset, _) in zip(raw, marks, strict=True)]
        send(self.stdin, np.array(sizes, np.int64).tobytes())
        send(self.stdin, b"".join(raw))
        counts = receive(self.stdout)
        content = receive(self.stdout) if counts is not None else None
        if counts is None or content is None:
            raise RuntimeError(f"an encoding process died with exit code {self.process.wait()}")
        if not counts:
            raise ValueError(content.decode())
        return np.frombuffer(content, self.dtype), np.frombuffer(counts, np.int64)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()


def serve(from_json: Callable[[str], "Tokenizer"]) -> None:
    """The child's loop: a tokenizer, then batches until the stream ends."""
    source = sys.stdin.buffer
    sink = sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing else may write into the frames
    tokenizer_json = receive(source)
    if tokenizer_json is None:
        return
    keep_pages()
    tokenizer = from_json(tokenizer_json.decode())
    while True:
        sizes = receive(source)
        raw = receive(source)
        if sizes is None or raw is None:
            return
        texts: list[str] = []
        marks: list[Mark] = []
        at = 0
        for size, offset in np.frombuffer(sizes, np.int64).reshape(-1, 2).tolist():
            texts.append(raw[at : at + size].decode("utf-8", "surrogatepass"))
            marks.append((offset, True))
            at += size
        try:
            ids, counts = tokenizer.encode_marked(texts, marks)
        except ValueError as error:
            send(sink, b"")
            send(sink, str(error).encode("utf-8", "backslashreplace"))
            continue
        send(sink, counts.astype(np.int64).tobytes())
        send(sink, ids.tobytes())


def send(file: IO[bytes], content: bytes) -> None:
    """Write a frame: the length in 8 bytes, then the content."""
    file.write(len(content).to_bytes(8, "little"))
    file.write(content)
    file.flush()


def receive(file: IO[bytes]) -> bytes | None:
    """The next frame, or None at the end of the stream."""
    head = file.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head, "little")
    content = file.read(size)
    return content if len(content) == size else None
