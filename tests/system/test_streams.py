"""Standard streams of any encoding, and outputs that cannot be written."""

import ast
import io
import os
import sys
from pathlib import Path

import pytest
from rich.markup import escape
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from lm.system import streams
from lm.system.console import Console
from lm.system.errors import ConfigError


def test_a_character_that_the_terminal_has_not_is_replaced(monkeypatch):
    """lm.sample died of it, and a training log lost the line."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    streams.replace_what_has_no_code()
    print("caf\u00e9 \udcff", flush=True)
    assert raw.getvalue() == b"caf? ?\n"


def test_an_output_that_no_file_can_be_written_to_is_told_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"out=\. is a folder: give the name of a file"):
        streams.check_output(".")
    with pytest.raises(ConfigError, match=r"out=file/x: .*file is no folder"):
        streams.check_output("file/x")
    with pytest.raises(ConfigError, match=r"out=\./file is read too, as file"):
        streams.check_output("./file", "-", "file")
    with pytest.raises(ConfigError, match="out=- is standard output: give the name of a file"):
        streams.check_output("-")  # a file called "-" was written
    with pytest.raises(ConfigError, match=r"out=ids\.gz: nothing is written packed"):
        streams.check_output("ids.gz", as_stream=True)  # which decode took for a damaged one
    streams.check_output("-", as_stream=True)
    for path in ("./-", "file", "new/folder/x"):
        streams.check_output(path)


def test_a_device_or_a_pipe_is_written_into_and_never_replaced(tmp_path):
    """lm.tokenizer train out=/dev/full, as root, put its file in the device's place."""
    os.mkfifo("pipe")
    streams.check_output("pipe", as_stream=True)
    with pytest.raises(ConfigError, match="out=pipe is no plain file"):
        streams.check_output("pipe")


def test_a_pointer_is_not_read_in_place_of_the_text():
    """lm.tokenizer encode wrote the ids of the pointer."""
    Path("a.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match="is a pointer of Git LFS"), streams.open_text("a.txt"):
        pass
    Path("link").symlink_to("/dev/null")
    with streams.open_bytes("link") as file:
        assert file.read() == b""


def write(path: str, stop: bool) -> None:
    with streams.open_output(path) as file:
        file.write(b"x")
        if stop:
            raise ValueError("half")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no full disk here")
def test_a_full_disk_names_the_output_and_leaves_no_part_of_it(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught:
        write("/dev/full", stop=False)
    assert caught.value.filename == "/dev/full"
    with pytest.raises(ValueError, match="half"):
        write("ids", stop=True)
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_a_link_stays_one():
    """out=/dev/stdout replaced the link itself, where the user may do that."""
    Path("real").write_bytes(b"old")
    Path("link").symlink_to("real")
    write("link", stop=False)
    assert Path("link").is_symlink() and Path("real").read_bytes() == b"x"


HOSTILE = "x\x1b[2J\x9b0m\u202e\u2066y\nloss 0.1"
CLEAN = "x\ufffd[2J\ufffd0m\ufffd\ufffdy"


def test_what_a_stranger_named_can_neither_drive_the_terminal_nor_begin_a_line(capsys):
    """Names of runs, files and corpora went through nine print()s as they were."""
    streams.print_line(f"run {HOSTILE}")
    streams.print_line(HOSTILE, to_stderr=True)
    printed = capsys.readouterr()
    assert printed.out == f"run {CLEAN}\ufffdloss 0.1\n"
    assert printed.err == f"{CLEAN}\ufffdloss 0.1\n"
    streams.print_text(HOSTILE, end="")
    assert capsys.readouterr().out == f"{CLEAN}\nloss 0.1"


def test_tables_colours_and_bars_show_a_text_that_cannot_drive_the_terminal():
    sink = io.StringIO()
    console = Console(file=sink, force_terminal=True, width=200)
    table = Table("tokenizer")
    table.add_row(Text(HOSTILE, style="bold"))
    with Progress(TextColumn("{task.fields[text]}"), console=console) as bar:
        bar.add_task("train", text=escape(HOSTILE))
        console.print(table)
        console.print(escape(HOSTILE))
    console.print(HOSTILE, markup=False)
    printed = sink.getvalue()
    assert printed.count("[2J") == printed.count("\ufffd[2J") >= 4
    assert "\x1b[1m" in printed  # rich's own
    for char in "\x9b\u202e\u2066":
        assert char not in printed


def test_every_line_for_a_person_is_printed_where_it_is_cleaned():
    """A print() or a plain console of rich anywhere else would show a stranger's text as it is."""
    root = Path(streams.__file__).parent.parent
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_print = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            is_console = isinstance(node, ast.ImportFrom) and node.module == "rich.console"
            names = [alias.name for alias in node.names] if is_console else []
            if is_print or "Console" in names:
                found.append(f"{path.relative_to(root)}:{node.lineno}")
    assert {place.partition(":")[0] for place in found} == {"system/streams.py"}, found
