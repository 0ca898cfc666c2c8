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
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np

from lm.tokenizers.text import Batch, Mark

_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lm.tokenizers import from_json, parallel; parallel.serve(from_json)"
)

Result = tuple[tuple[np.ndarray, np.ndarray], list[Mark]]


def encode(
    to_json: Callable[[], str], batches: Iterator[Batch], n_proc: int, dtype: type
) -> Iterator[Result]:
    """What `encode_batch` gives for each batch, in order, with at most 3 * n_proc batches in
    memory. No process starts where there is no batch.
    """
    first = list(itertools.islice(batches, 1))
    if not first:
        return
    idle: SimpleQueue[_Worker] = SimpleQueue()
    workers = [_Worker(to_json(), dtype) for _ in range(n_proc)]
    for worker in workers:
        idle.put(worker)

    def run(batch: Batch) -> Result:
        worker = idle.get()
        try:
            return worker.encode(*batch), batch[1]
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(n_proc)
    pending: deque = deque()
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
    """One child process; frames are a length in 8 bytes, then the content."""

    def __init__(self, tokenizer_json: str, dtype: type):
        self.dtype = np.dtype(dtype)
        command = [sys.executable, "-c", _CHILD, json.dumps([p or os.getcwd() for p in sys.path])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.setup: bytes | None = tokenizer_json.encode()

    def encode(self, texts: list[str], marks: list[Mark]) -> tuple[np.ndarray, np.ndarray]:
        if (
            self.setup is not None
        ):  # sent by the worker's first thread, so that all children start together
            send(self.process.stdin, self.setup)
            self.setup = None
        raw = [text.encode("utf-8", "surrogatepass") for text in texts]
        sizes = np.array([(len(r), mark[0]) for r, mark in zip(raw, marks, strict=True)], np.int64)
        send(self.process.stdin, sizes.tobytes())
        send(self.process.stdin, b"".join(raw))
        counts = receive(self.process.stdout)
        if counts is None:
            raise RuntimeError(f"an encoding process died with exit code {self.process.wait()}")
        content = receive(self.process.stdout)
        if not counts:
            raise ValueError(content.decode())
        return np.frombuffer(content, self.dtype), np.frombuffer(counts, np.int64)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def serve(tokenizer_of_json) -> None:
    """The child's loop: a tokenizer, then batches until the stream ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing else may write into the frames
    tokenizer = tokenizer_of_json(receive(source).decode())
    while (sizes := receive(source)) is not None:
        size, offset = np.frombuffer(sizes, np.int64).reshape(-1, 2).T
        raw, ends = receive(source), np.cumsum(size)
        texts = [
            raw[end - n : end].decode("utf-8", "surrogatepass")
            for n, end in zip(size, ends, strict=True)
        ]
        try:
            ids, counts = tokenizer.encode_marked(texts, [(int(k), True) for k in offset])
        except ValueError as error:
            send(sink, b"")
            send(sink, str(error).encode("utf-8", "backslashreplace"))
            continue
        send(sink, counts.astype(np.int64).tobytes())
        send(sink, ids.tobytes())


def send(file, content: bytes) -> None:
    file.write(len(content).to_bytes(8, "little"))
    file.write(content)
    file.flush()


def receive(file) -> bytes | None:
    """The next frame, or None at the end of the stream."""
    head = file.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head, "little")
    content = file.read(size)
    return content if len(content) == size else None
