"""Files that somebody else made are opened in one place, which waits for nothing and says why."""

import ast
import os
import tracemalloc
from pathlib import Path

import pytest

from lm.record import schemas
from lm.system import files, foreign
from lm.system.errors import DamagedError, PointerError
from lm.system.tensors import load_shapes, load_tensors
from lm.tokenizers import formats

ROOT = Path(__file__).parents[2] / "lm"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 9\n"


# ------------------------------------------------------------------------------- the one place

READS = {"open", "io.open", "os.open", "gzip.open", "codecs.open"}  # and methods of a Path
READS |= {"load_file", "safe_open", "np.memmap", "np.load", "np.fromfile", "np.loadtxt"}
READS |= {"json.load", "yaml.safe_load", "OmegaConf.load", "torch.load", "gzip.GzipFile"}
# Every other call, and why the file is not a stranger's, or was looked at before.
ALLOWED = {
    ("data/token_files.py", "open"): "written",
    ("launch/compose.py", "OmegaConf.load"): "this checkout's own experiments",
    ("lens/page.py", "read_text"): "a template of this package",
    ("report/page.py", "read_text"): "a template of this package",
    ("record/tracker.py", "open"): "written, in a run that was searched for links and pipes",
    ("sweep/study.py", "open"): "the journal, looked at by the sweep",
    ("system/files.py", "open"): "written, after foreign.check",
    ("system/durable.py", "open"): "just written, to sync it",
    ("system/durable.py", "os.open"): "a folder, to sync it",
    ("system/locks.py", "os.open"): "a lock of ours, made where nothing is there",
    ("system/memory.py", "read_text"): "/proc and /sys",
    ("system/store.py", "read_text"): "/proc",
    ("system/store.py", "open"): "just written, to sync it; our own mark, written",
    ("system/streams.py", "open"): "named on the command line: a pipe is waited for there",
    ("system/streams.py", "os.open"): "the null device",
    ("system/tensors.py", "load_file"): "after foreign.check",
    ("system/tensors.py", "safe_open"): "after foreign.check",
    ("data/token_files.py", "np.memmap"): "after foreign.check",
    ("system/packed.py", "gzip.GzipFile"): "of a file opened by foreign",
}


def is_written(call):
    if "O_WRONLY" in ast.unparse(call):
        return True
    mode = [word.value for word in call.keywords if word.arg == "mode"] + call.args[1:2]
    value = getattr(mode[0], "value", "") if mode else ""
    return isinstance(value, str) and bool(set(value) & set("wx"))


def calls():
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).as_posix()
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = ast.unparse(call.func)
            owner, _, last = name.rpartition(".")
            mode = call.args[0] if call.args else None
            is_method = bool(owner) and last in ("read_text", "read_bytes")
            is_method |= bool(owner) and last == "open" and isinstance(mode, ast.Constant)
            if (name in READS or is_method) and owner != "foreign" and not is_written(call):
                yield place, name if name in READS else last


def test_no_other_place_opens_a_file_that_may_be_a_strangers():
    found = {call for call in calls() if call[0] != "system/foreign.py"}
    assert found - set(ALLOWED) == set()


# -------------------------------------------------------------------------- what is refused


def pipe(path):
    os.mkfifo(path)


def loop(path):
    path.symlink_to(path.name)


def device(path):
    path.symlink_to("/dev/zero")


def huge(path):
    path.touch()
    os.truncate(path, 1 << 42)


REFUSED = {
    "a pipe": (pipe, "is not a plain file"),
    "a folder": (Path.mkdir, "is not a plain file"),
    "a device": (device, "is not a plain file"),
    "a link to itself": (loop, "symbolic links"),
    "a pointer": (lambda path: path.write_text(POINTER), r"is a pointer of Git LFS.*: git -C "),
    "nothing": (lambda path: None, "No such file"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_plain_file_is_refused_in_one_line_and_not_waited_for(kind, tmp_path):
    make, says = REFUSED[kind]
    path = tmp_path / "a file.json"
    make(path)
    reads = [
        lambda: foreign.read_text(path, links=True),
        lambda: foreign.read_bytes(path, 999, links=True),
        lambda: files.read_record(path, schemas.Summary, links=True),
        lambda: files.sha256(path),
        lambda: load_tensors(path, links=True),
        lambda: load_shapes(path, links=True),
        lambda: formats.from_hf(path),
        lambda: formats.from_tiktoken(path, "gpt2"),
        lambda: formats.from_gpt2(path, path),
    ]
    for number, read in enumerate(reads):
        with pytest.raises(ValueError, match=says) as refused:
            read()
        text = str(refused.value)
        assert "\n" not in text and str(path) in text, number


def test_a_link_is_followed_only_where_the_user_named_it(tmp_path):
    (tmp_path / "blob").write_text("{}")
    link = tmp_path / "link"
    link.symlink_to("blob")
    assert foreign.read_text(link, links=True) == "{}"
    with pytest.raises(DamagedError, match="is not a plain file"):
        foreign.read_text(link)


def test_a_size_is_checked_before_memory_is_taken(tmp_path):
    huge(tmp_path / "x")
    with pytest.raises(DamagedError, match="4,398,046,511,104 bytes, and 1,073,741,824"):
        foreign.read_text(tmp_path / "x")


def test_the_command_for_a_pointer_can_be_pasted(tmp_path):
    folder = tmp_path / "a model's"
    folder.mkdir()
    (folder / "model.safetensors").write_text(POINTER)
    with pytest.raises(PointerError, match=r"git -C '.*/a model'\"'\"'s' lfs pull$"):
        load_tensors(folder / "model.safetensors")
    (folder / "x").write_text("/annex/objects/SHA256E-s9--abc\n")
    with pytest.raises(PointerError, match="git-annex"):
        foreign.read_text(folder / "x")


@pytest.mark.parametrize("content", [
    b"version https://example.org/\n", b"/annex/objects/", b"/annex/objects/ is a folder.\n",
    b"/annex/objects/SHA256E-s9--abc\n\0\1", b"version https://git-lfs.github.com/spec/v1\n\0",
])  # fmt: skip
def test_what_only_begins_like_a_pointer_is_read(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert foreign.read_bytes(tmp_path / "x") == content


def test_line_ends_and_byte_order_marks_of_other_systems_are_read(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert foreign.read_text(tmp_path / "x") == "a\nb\nc\n"


def test_a_small_file_takes_little_memory_whatever_is_allowed(tmp_path):
    (tmp_path / "x").write_text("abc")
    tracemalloc.start()
    assert foreign.read_text(tmp_path / "x", limit=1 << 30) == "abc"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
