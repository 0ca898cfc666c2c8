"""Commands as forks of a process that has loaded the libraries already, which takes it 3 s.

Each is a process of its own, from the first line of lm on: its own environment, directory, streams
and exit code. Nothing of lm is loaded before the fork.
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

LIBRARIES = (
    *("numpy", "torch", "torch.func", "torch.utils.flop_counter", "safetensors.torch"),
    *("hydra.main", "hydra._internal.callbacks", "hydra._internal.hydra", "omegaconf"),
    *("hydra._internal.core_plugins.basic_launcher", "hydra._internal.core_plugins.basic_sweeper"),
    *("hydra._internal.core_plugins.file_config_source", "hydra.experimental", "numpy.random"),
    "hydra._internal.core_plugins.importlib_resources_config_source",
    "hydra._internal.core_plugins.structured_config_source",
    *("msgspec", "regex", "filelock", "rich.live", "rich.progress"),
)
# What may be other in a fork than in the process that loaded the libraries.
READ_LATE = ("LM_", "WANDB_", "HF_", "XDG_CONFIG_HOME", "NETRC", "COLUMNS", "HYDRA_FULL_ERROR")
READ_LATE += ("PYTEST_CURRENT_TEST", "CUBLAS_WORKSPACE_CONFIG", "TORCHINDUCTOR_CACHE_DIR")
READ_LATE += ("TERM", "NO_COLOR", "LINES")


class Started:
    """A fork under way, with what tests ask of a subprocess.Popen."""

    def __init__(self, pid: int, status: Path) -> None:
        self.pid = pid
        self.status = status  # a file that holds its exit code once it has ended
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self.status.exists():
            self.returncode = int(self.status.read_text(encoding="utf-8"))
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """Starts the process at the first command and ends it at the end of the tests."""

    def __init__(self, env: dict[str, str], compiled: Path | None = None) -> None:
        """`env` is the environment of a command where no test has changed it, `compiled` a folder
        in which one fork leaves compiled modules for the next."""
        self.env = env
        self.compiled = compiled
        self.process: subprocess.Popen | None = None

    def can_run(self, env: dict[str, str]) -> bool:
        """Whether a fork would be what a new process in this environment is."""
        if not hasattr(os, "fork"):
            return False
        keys = self.env.keys() | env.keys()
        changed = [key for key in keys if self.env.get(key) != env.get(key)]
        return all(key.startswith(READ_LATE) for key in changed)

    def run(
        self, words: list[str], cwd: Path, env: dict[str, str], streams: Path, timeout: float
    ) -> subprocess.CompletedProcess:
        """`python -m WORDS`, done; `streams` is a folder for what it writes until it is read."""
        files = [os.devnull, str(streams / "stdout"), str(streams / "stderr")]
        self._ask({"words": words, "cwd": str(cwd), "env": env, "files": files})
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.close()
            raise subprocess.TimeoutExpired(words, timeout)
        code = json.loads(self.process.stdout.readline())
        stdout, stderr = (Path(file).read_text(encoding="utf-8") for file in files[1:])
        return subprocess.CompletedProcess(words, code, stdout, stderr)

    def start(
        self, words: list[str], cwd: Path, env: dict[str, str], status: Path, *files: str
    ) -> Started:
        """`python -m WORDS` under way; `files` are its three streams, or it has none."""
        given = {"files": files or [os.devnull] * 3, "status": str(status)}
        self._ask({"words": words, "cwd": str(cwd), "env": env, **given})
        return Started(int(self.process.stdout.readline()), status)

    def _ask(self, request: dict) -> None:
        if self.process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.forks", *filter(None, [self.compiled])],
                env=self.env,
                text=True,
                **pipes,
            )
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def serve() -> dict:
    """Fork for each request; tell its exit code, or its process. In a fork, return the request."""
    for line in sys.stdin:
        request = json.loads(line)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # what has waited for a fork, and ended with it
                pass
        pid = watched_fork(Path(request["status"])) if "status" in request else os.fork()
        if pid == 0:
            return request
        if "status" not in request:
            pid = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(pid, flush=True)
    os._exit(0)


def watched_fork(status: Path) -> int:
    """As os.fork, with a process between the two that leaves the fork's exit code in a file."""
    read, write = os.pipe()
    if os.fork() == 0:
        pid = os.fork()
        if pid == 0:
            os.close(read)
            os.close(write)
            return 0
        os.write(write, str(pid).encode())
        os.close(write)
        for number in (0, 1):  # or who waits for the end of these streams waits for the fork
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        new = status.with_suffix(".new")
        new.write_text(str(code), encoding="utf-8")
        new.rename(status)
        os._exit(0)
    os.close(write)
    pid = int(os.read(read, 20))
    os.close(read)
    return pid


def become(request: dict) -> None:
    """Make this fork the process that the request asks for, up to its first line of Python."""
    for number, file in enumerate(request["files"]):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
        os.dup2(os.open(file, flags | os.O_NOCTTY), number)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    # As a new process has them: also what stood first here, and nowhere else.
    given = request["env"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [request["cwd"], *(path for path in given if path and path not in sys.path[1:])]
    sys.argv = request["words"]
    for name in ("tests", "tests.forks"):
        sys.modules.pop(name, None)


def run(module: str) -> int:
    """`python -m MODULE`, up to what it does when it ends; its exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def end_with(code: int) -> None:
    """What a process does when it ends, but for freeing its memory piece by piece, which takes a
    fork 0.3 s as it has to copy each page first."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    for name in LIBRARIES:
        __import__(name)
    gc.freeze()  # what is loaded stays, so a fork need not look through it
    if sys.dont_write_bytecode and sys.argv[1:]:  # each fork would compile all of lm
        sys.dont_write_bytecode, sys.pycache_prefix = False, sys.argv[1]
    asked = serve()
    become(asked)
    end_with(run(asked["words"][0]))
