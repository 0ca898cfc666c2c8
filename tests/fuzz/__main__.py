"""Random inputs to everything that lm reads: only the errors of a user may come out, soon.

    make fuzz                                    # ten million inputs, on every core
    LM_FUZZ_SECONDS=600 make fuzz                # or as many as there is time for
    LM_FUZZ_SEED=7 make fuzz                     # others than those of seed 0
    python -m tests.fuzz settings 17             # input 17 of settings, with its traceback

An input may take 5 s of the processor, and the process may grow by 2 GB. One that fails is named by
its target and number, which make it again. What was found stands as a test beside those of the part
that was at fault.
"""

import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

N_INPUTS = int(os.environ.get("LM_FUZZ_INPUTS", 10_000_000))  # of all processes together
SECONDS = float(os.environ.get("LM_FUZZ_SECONDS", "inf"))
SEED = os.environ.get("LM_FUZZ_SEED", "0")
N_JOBS = int(os.environ.get("LM_FUZZ_JOBS", os.cpu_count() or 1))
LIMIT = 5.0  # seconds of the processor for one input
GROWTH = 2 << 30  # bytes by which the process may grow
TURN = 2.0  # seconds for which one target is tried before the next
DEAD = 300  # seconds after which a turn hangs where no signal is heard: in a library's code
TOLD = 5  # failing inputs of a target that are shown with their traceback
LONGEST = 5000  # characters of an error


class Late(BaseException):
    """An input took too long: no handler of an Exception may take it for an error of the user."""


def main() -> None:
    """Try inputs in several processes, or one again."""
    if len(sys.argv) == 3 and sys.argv[1] == "--job":
        sys.exit(job(int(sys.argv[2])))
    if len(sys.argv) == 3:
        again(sys.argv[1], int(sys.argv[2]))
        return
    command = [sys.executable, "-m", "tests.fuzz", "--job"]
    jobs = []
    for number in range(N_JOBS):
        jobs.append(subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True))
    totals = [json.loads(job.stdout.read().splitlines()[-1]) for job in jobs if job.stdout]
    codes = [job.wait() for job in jobs]
    counts = sum((Counter(total["counts"]) for total in totals), Counter())
    seconds = max(total["seconds"] for total in totals)
    failed = [f"{target} {number}" for total in totals for target, number in total["failed"]]
    rate = counts.total() / seconds
    print(f"inputs tried at random: {counts.total():,} in {seconds:,.0f} s, {rate:,.0f} a second")
    print("  ".join(f"{name} {n:,}" for name, n in counts.items()))
    for name in failed:
        print(f"failed: LM_FUZZ_SEED={SEED} python -m tests.fuzz {name}")
    sys.exit(bool(failed or any(codes)))


def job(first: int) -> int:
    """Try every N_JOBSth input from `first` on, the targets in turns; prints a line of JSON.

    1 if one failed, else 0.
    """
    counts: Counter[str] = Counter()
    failed: list[tuple[str, int]] = []
    with folder() as home:
        checks = {name: make(home) for name, make in targets().items()}
        begin = time.monotonic()
        shown = begin
        while counts.total() * N_JOBS < N_INPUTS and time.monotonic() - begin < SECONDS:
            for name, check in checks.items():
                faulthandler.dump_traceback_later(DEAD, exit=True)
                until = min(time.monotonic() + TURN, begin + SECONDS)
                while time.monotonic() < until and counts.total() * N_JOBS < N_INPUTS:
                    number = first + counts[name] * N_JOBS
                    error = tried(check, name, number)
                    counts[name] += 1
                    if error:
                        failed.append((name, number))
                        n_of_name = sum(name == other for other, _ in failed)
                        if n_of_name <= TOLD:
                            print(f"{name} {number}: {error}", file=sys.stderr, flush=True)
            if time.monotonic() - shown > 60:
                shown = time.monotonic()
                rate = counts.total() / (shown - begin)
                print(
                    f"job {first}: {counts.total():,} inputs, {rate:,.0f} a second, "
                    f"{len(failed)} failed, {peak() / 1e9:.1f} GB at most",
                    file=sys.stderr,
                    flush=True,
                )
        faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - begin
    print(json.dumps({"counts": counts, "failed": failed, "seconds": seconds}), flush=True)
    return int(bool(failed))


def again(name: str, number: int) -> None:
    """Try one input again; its error ends the command."""
    with folder() as home:
        error = tried(targets()[name](home), name, number)
    print(error or f"{name} {number}: taken, or refused in one line")
    sys.exit(bool(error))


def targets() -> dict:
    """The targets, or those that LM_FUZZ_TARGETS names."""
    from tests.fuzz.targets import TARGETS

    chosen = os.environ.get("LM_FUZZ_TARGETS", "").split()
    return {name: make for name, make in TARGETS.items() if name in chosen or not chosen}


@contextlib.contextmanager
def folder():
    """The folder with the good inputs, in which the process now is; nothing is synced in it."""
    import torch

    from lm.launch import compose
    from tests.fuzz.targets import Home

    torch.set_num_threads(1)
    compose.register()
    os.fsync = lambda _: None
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        os.environ["LM_CACHE_DIR"] = str(Path(place) / "cache")
        with contextlib.redirect_stdout(io.StringIO()):
            home = Home(Path(place))
        yield home
        os.chdir("/")


def tried(check, name: str, number: int) -> str:
    """Try one input; what is wrong, "" if it is taken or refused as it should be."""
    rng = random.Random(f"{SEED}/{name}/{number}")

    def late(*_: object) -> None:
        raise Late(f"no answer in {LIMIT:g} s of computing")

    before = peak()
    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        try:
            check(rng)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except (ValueError, OSError) as error:
        text = str(error)
        if not text or len(text) > LONGEST:
            return f"the error says {text[:200]!r}, in {len(text):,} characters"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not hasattr(error, "exit_code"):
            return "".join(traceback.format_exception(error))[-4000:]
    grown = peak() - before
    return f"it grew by {grown / 1e9:.1f} GB" if grown > GROWTH else ""


def peak() -> int:
    """The most memory that the process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
