"""Change the science of lm in thousands of small ways and ask whether a test notices each.

    make mutants                                 # every file of judges.py: hours
    make mutants ARGS="lm/metrics.py"            # or some of them
    LM_MUTANT_JOBS=1 make mutants                # on one core

A mutant that no test kills is a hole, unless living.txt says why it may live. The table of
README.md is written anew; the exit code is 1 where a file has more holes than it said. What was
killed is kept in build/mutants until the function changes; `rm -r` it to begin anew.
"""

import ast
import difflib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import ROOT
from tests.mutants.judges import FILES, JUDGES

HERE = Path(__file__).parent
WORK = ROOT / "build" / "mutants"
N_JOBS = os.environ.get("LM_MUTANT_JOBS", str(os.cpu_count() or 1))
KEPT = ("conf", "docs", "experiments", "hydra_plugins", "tests", "README.md")  # what tests read
SETTINGS = """
[tool.mutmut]
source_paths = ["lm"]
only_mutate = {paths}
also_copy = {kept}
pytest_add_cli_args_test_selection = {tests}
# Fast tests alone, or a mutant costs seconds; the same inputs every time, or one is killed by luck.
pytest_add_cli_args = [
    "-m", "not slow and not faults", "-p", "no:cacheprovider", "--hypothesis-seed=0",
    "-p", "tests.mutants.preload",
]
process_isolation = "forkserver"  # torch is imported once, in a process that computes nothing
timeout_constant = 2.0
timeout_multiplier = 5.0  # a mutant that never ends counts as killed after ten seconds or more
use_git_change_detection = false
"""
# As mutmut keeps what came of a mutant: the code with which pytest ended, or its own.
SURVIVED = (0, 5, 33)  # 5 and 33: no test calls the function


@dataclass(frozen=True)
class Living:
    """A mutant that no test killed: a function, and the lines that were changed in it."""

    path: str
    function: str
    change: tuple[str, ...]  # a diff's lines without comments, each with its - or +

    def __str__(self) -> str:
        return "\n".join((f"{self.path} {self.function}", *self.change))


def main() -> None:
    wanted = sys.argv[1:] or FILES
    unknown = [path for path in wanted if path not in FILES]
    if unknown:
        sys.exit(f"{unknown[0]} is no file that tests/mutants/judges.py names")
    reasons = read_reasons((HERE / "living.txt").read_text(encoding="utf-8"))
    n_new = 0
    for group, judges in JUDGES.items():
        paths = [path for path in group if path in wanted]
        if not paths:
            continue
        folder = WORK / "+".join(paths).replace("/", ".").replace(".py", "")
        run(folder, paths, judges)
        for path in paths:
            n_new += report(path, *result(folder, path), reasons)
    print(f"\n{n_new} mutants more than before live without a reason")
    sys.exit(1 if n_new else 0)


def report(path: str, n: int, living: list[Living], reasons: dict[Living, str]) -> int:
    """Print the holes of a file and put it into the table; how many more than that said they are.

    A file that is not in the table has holes that nobody has looked at: none of them counts.
    """
    holes = [mutant for mutant in living if mutant not in reasons]
    for mutant in holes:
        print(f"\n{mutant}")
    for mutant in reasons:
        if mutant.path == path and mutant not in living:
            print(f"\nliving.txt lists what lives no more:\n{mutant}")
    row = (n, n - len(living), len(living) - len(holes), len(holes))
    before = write_row(path, row)
    return 0 if before is None else max(0, len(holes) - before)


# --------------------------------------------------------------------------- mutants of some files


def run(folder: Path, paths: list[str], judges: tuple[str, ...]) -> None:
    """Have mutmut try every mutant of the files in a folder of their own."""
    prepare(folder, paths, judges)
    # Without the texts of a machine, whose tests are slow and which a nightly run does not have.
    env = {name: value for name, value in os.environ.items() if name != "LM_DATA_DIR"}
    log = folder / "log.txt"
    with log.open("w") as out:
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", N_JOBS]
        done = subprocess.run(command, cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        judged = f"python -m pytest {' '.join(judges)}"
        sys.exit(
            f"mutmut ended with exit code {done.returncode}: see {log}; does this pass? {judged}"
        )


def result(folder: Path, path: str) -> tuple[int, list[Living]]:
    """How many mutants of a file were tried, and which live."""
    codes = json.loads((folder / "mutants" / f"{path}.meta").read_text())["exit_code_by_key"]
    names = [name.rpartition(".")[2] for name, code in codes.items() if code in SURVIVED]
    changes = Changes((folder / "mutants" / path).read_text(encoding="utf-8"))
    return len(codes), [Living(path, *changes.of(name)) for name in names]


def prepare(folder: Path, paths: list[str], judges: tuple[str, ...]) -> None:
    """A copy of the repository in which mutmut changes some files; it is made up to date."""
    shutil.copytree(ROOT / "lm", folder / "lm", dirs_exist_ok=True)
    for name in KEPT:
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    settings = SETTINGS.format(paths=paths, kept=list(KEPT), tests=list(judges))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(project + settings, encoding="utf-8")
    for path in paths:
        source = folder / path
        source.write_text(mutable(source.read_text(encoding="utf-8")), encoding="utf-8")
        shutil.copystat(ROOT / path, source)  # by its time mutmut tells whether it has changed
        # Tests may have come that kill what lived.
        meta = folder / "mutants" / f"{path}.meta"
        if meta.exists():
            known = json.loads(meta.read_text())
            codes = known["exit_code_by_key"]
            known["exit_code_by_key"] = {k: None if c in SURVIVED else c for k, c in codes.items()}
            meta.write_text(json.dumps(known))


def mutable(source: str) -> str:
    """Source that does the same, of which mutmut changes what we want to see changed.

    It leaves functions with a decorator alone, so that is applied below the function. What an
    assertion, an error or the log says is not science, and `strict=True` of zip is an assertion.
    """
    lines = source.replace(", strict=True)", ")").splitlines()
    below: dict[int, list[str]] = {}  # what is put behind a line
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            for decorator in reversed(node.decorator_list):
                text = ast.unparse(decorator)
                if text not in ("staticmethod", "classmethod"):
                    lines[decorator.lineno - 1] = ""
                    new = f"{' ' * node.col_offset}{node.name} = {text}({node.name})"
                    below.setdefault(node.end_lineno or 0, []).append(new)
        elif isinstance(node, ast.Raise | ast.Assert) or is_no_science(node):
            for i in range(node.lineno - 1, node.end_lineno):
                lines[i] += "  # pragma: no mutate"
    parts = [[line, *below.get(i, [])] for i, line in enumerate(lines, 1)]
    return "\n".join(line for part in parts for line in part) + "\n"


def is_no_science(node: ast.AST) -> bool:
    """Whether a statement writes to the log, or names a place where tests break a run."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    return ast.unparse(node.value.func).startswith(("log.", "failpoint."))


class Changes:
    """What mutants change, read from the file in which mutmut keeps them all."""

    def __init__(self, source: str) -> None:
        self.lines = source.splitlines()
        self.functions = {
            node.name: node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name
        }

    def of(self, name: str) -> tuple[str, tuple[str, ...]]:
        """A mutant's function, as Class.method, and the lines of its difference."""
        plain = name.rpartition("__mutmut_")[0]
        before, after = self._body(f"{plain}__mutmut_orig"), self._body(name)
        diff = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
        lines = [line.partition("  # ")[0] for line in diff if line[0] != "@"]
        change = [f"{line[0]} {line[1:].strip()}" for line in lines]
        return plain[2:].replace("ǁ", "."), tuple(change)  # of x_function or xǁClassǁmethod

    def _body(self, name: str) -> list[str]:
        node = self.functions[name]
        lines = self.lines[node.lineno - 1 : node.end_lineno]
        return [line.replace(name, "") for line in lines]


# ------------------------------------------------------------------------- reasons and the table


def read_reasons(text: str) -> dict[Living, str]:
    """living.txt: blocks of a file and function, the changed lines, and behind = the reason."""
    reasons = {}
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if not lines:
            continue
        path, _, function = lines[0].partition(" ")
        change = tuple(line for line in lines[1:] if line[0] in "-+")
        why = " ".join(line[2:] for line in lines[1:] if line[0] == "=")
        if not why or not change:
            sys.exit(f"living.txt: a change and a reason are missing for\n{block}")
        reasons[Living(path, function, change)] = why
    return reasons


HEAD = "| file | mutants | killed | may live | live |"


def write_row(path: str, counts: tuple[int, ...]) -> int | None:
    """Put a file's counts into the table of README.md; the last of its counts before, if any.

    Its rows are in the order of judges.py.
    """
    page = HERE / "README.md"
    text, _, below = page.read_text(encoding="utf-8").partition(HEAD)
    rows = {line.split("`")[1]: line for line in below.splitlines()[2:]}
    before = int(rows[path].split("|")[-2]) if path in rows else None
    rows[path] = " | ".join((f"| `{path}`", *map(str, counts))) + " |"
    lines = [HEAD, "|---|--:|--:|--:|--:|", *[rows[path] for path in FILES if path in rows]]
    page.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
    return before


if __name__ == "__main__":
    main()
