"""Standard streams of any encoding, and outputs that cannot be written."""

import io
import sys

import pytest

from lm.system import streams
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
    for path in ("-", "file", "new/folder/x"):
        streams.check_output(path)


def write(path: str, stop: bool) -> None:
    with streams.open_output(path) as file:
        file.write(b"x")
        if stop:
            raise ValueError("half")


def test_a_full_disk_names_the_output_and_leaves_no_part_of_it(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught:
        write("/dev/full", stop=False)
    assert caught.value.filename == "/dev/full"
    with pytest.raises(ValueError, match="half"):
        write("ids", stop=True)
    assert not list(tmp_path.iterdir())
