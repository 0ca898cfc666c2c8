"""Commands as forks of a process that has loaded the libraries already, which takes it 3 s.

Each is a process of its own, from the first line of lm on: its own environment, directory, streams
and exit code. Nothing of lm is loaded before the fork.
"""

import atexit
import gc
import json
import os
import runpy
import select
import subprocess
import sys
import threading
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
        if self.process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.forks", *filter(None, [self.compiled])],
                env=self.env,
                text=True,
                **pipes,
            )
        files = [streams / "stdout", streams / "stderr"]
        request = {"words": words, "cwd": str(cwd), "env": env, "files": list(map(str, files))}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.close()
            raise subprocess.TimeoutExpired(words, timeout)
        code = json.loads(self.process.stdout.readline())
        stdout, stderr = (path.read_text(encoding="utf-8") for path in files)
        return subprocess.CompletedProcess(words, code, stdout, stderr)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def serve() -> dict:
    """Fork for each request and tell its exit code; in a fork, return the request."""
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return request
        status = os.waitpid(pid, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)


def become(request: dict) -> None:
    """Make this fork the process that the request asks for, up to its first line of Python."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(request["files"], 1):
        os.dup2(os.open(file, flags), number)
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
