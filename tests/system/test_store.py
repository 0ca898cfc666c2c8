"""Folders are whole or absent, whatever changes, dies or runs at the same time."""

import errno
import math
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import filelock
import msgspec
import pytest

from lm.system import files, store
from lm.system import locks as locks_module
from lm.system.errors import DamagedError
from lm.system.schemas import Int, Number
from tests.helpers import no_locks


def fill(folder):
    (folder / "a.bin").write_bytes(bytes(range(256)) * 10)
    (folder / "b.txt").write_text("hello")


@pytest.fixture
def whole(tmp_path):
    with store.new_folder(tmp_path / "x") as tmp:
        fill(tmp)
    return tmp_path / "x"


def test_what_a_damaged_file_says_of_itself_is_cut():
    """All of a header was repeated; found by fuzzing."""
    assert str(DamagedError("short")) == "short"
    assert len(str(DamagedError("a" * 9999))) < 2000


def test_a_new_folder_appears_whole_and_leaves_nothing_else(whole, tmp_path):
    store.verify(whole)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def interrupted(folder):
    with store.new_folder(folder) as tmp:
        fill(tmp)
        raise KeyboardInterrupt


def test_a_full_disk_while_filling_names_the_folder(tmp_path):
    names_it = pytest.raises(OSError, match=r"No space left on device: '.*/final'")
    with names_it, store.new_folder(tmp_path / "final"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_an_error_while_filling_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "x")
    assert not list(tmp_path.iterdir())


DAMAGE = {
    "one bit": lambda f: (f / "a.bin").write_bytes(b"\x01" + (f / "a.bin").read_bytes()[1:]),
    "cut": lambda f: (f / "a.bin").write_bytes((f / "a.bin").read_bytes()[:-1]),
    "empty": lambda f: (f / "a.bin").write_bytes(b""),
    "missing": lambda f: (f / "a.bin").unlink(),
    "added": lambda f: (f / "c").touch(),
    "link": lambda f: ((f / "a.bin").rename(f.parent / "o"), (f / "a.bin").symlink_to("../o")),
    "no manifest": lambda f: (f / store.MANIFEST).unlink(),
    "manifest cut": lambda f: (f / store.MANIFEST).write_text('{"files": {'),
    "manifest a list": lambda f: (f / store.MANIFEST).write_text("[]"),
    "manifest deep": lambda f: (f / store.MANIFEST).write_text("[" * 100_000),
    "manifest of nothing": lambda f: (f / store.MANIFEST).write_text('{"files": {}}'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_is_found_and_repaired_by_building_again(whole, damage, caplog):
    DAMAGE[damage](whole)
    with pytest.raises(DamagedError):
        store.verify(whole)
    assert store.build_once(whole, fill) is not None
    assert "building it again" in caplog.text
    store.verify(whole)
    assert (whole / "a.bin").read_bytes() == bytes(range(256)) * 10


def test_an_intact_folder_is_not_built_again(whole):
    assert store.build_once(whole, lambda tmp: pytest.fail("built again")) is None


def slow_build(folder, log):
    def make(tmp):
        with open(log, "a") as file:
            file.write("built\n")
        time.sleep(0.3)
        fill(tmp)

    store.build_once(folder, make)
    store.verify(folder)


@pytest.mark.parametrize("locks", [True, False])
def test_eight_builders_at_once_leave_one_good_folder(tmp_path, locks, monkeypatch):
    if not locks:
        monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path / "x", tmp_path / "log")
    jobs = [context.Process(target=slow_build, args=arguments) for _ in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 8
    built = (tmp_path / "log").read_text().count("built")
    assert built == 1 if locks else 1 <= built <= 8
    store.verify(tmp_path / "x")


def in_a_process(work):
    job = multiprocessing.get_context("fork").Process(target=work)
    job.start()
    job.join()
    return job.exitcode


def test_a_killed_builder_does_not_stop_the_next_and_its_leftovers_go(tmp_path):
    def killed():
        store.build_once(tmp_path / "x", lambda tmp: (fill(tmp), os._exit(9)))

    assert in_a_process(killed) == 9
    assert not (tmp_path / "x").exists()
    assert len(list(tmp_path.glob(".x.*.tmp"))) == 1
    assert store.build_once(tmp_path / "x", fill) is not None
    store.verify(tmp_path / "x")
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_others_write_is_left_alone_and_deleted_once_they_are_dead(tmp_path, monkeypatch):
    """Of two containers with one host name, each took the other for dead by its process number."""
    context = multiprocessing.get_context("fork")
    begun = context.Event()

    def build():
        monkeypatch.setattr(os, "getpid", lambda: 999_999_999)  # no process here has that number
        monkeypatch.setattr(os, "replace", lambda *_: (begun.set(), time.sleep(60)))
        with store.new_folder(tmp_path / "x") as tmp:
            fill(tmp)
            files.atomic_write(tmp_path / "y", "text")

    child = context.Process(target=build)
    child.start()
    assert begun.wait(30)
    names = {path.name.partition(".999999999.")[0] for path in tmp_path.iterdir()}
    assert names == {f".x.{files.HOST}", f".y.{files.HOST}"}
    assert len(list(tmp_path.iterdir())) == 3  # a folder and its lock; a file, which is its own
    with store.new_folder(tmp_path / "z") as tmp:
        fill(tmp)
    assert len(list(tmp_path.iterdir())) == 4
    child.kill()
    child.join()
    store.clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["z"]


def test_no_file_that_is_not_ours_is_taken_for_a_leftover(tmp_path):
    mark = f"{files.HOST}.{os.getpid()}"
    names = [f".x.elsewhere.{os.getpid()}.abcdef12.tmp", ".y.tmp", f".x.{mark}.abcdef12.TMP"]
    names += [f"x.{mark}.abcdef12.tmp", f".x.{mark}.notes.tmp", f".{mark}.abcdef12.tmp"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / f".x.{mark}.abcdef34.tmp").symlink_to(tmp_path)
    store.clear_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1 + len(names)


def test_a_folder_that_takes_no_file_is_not_waited_for(tmp_path, monkeypatch):
    """In /proc an export never ended: filelock takes the failure for another process's doing."""
    waited = []
    monkeypatch.setattr(filelock.FileLock, "acquire", lambda lock: waited.append(lock))
    (tmp_path / "file").touch()
    with locks_module.waited(tmp_path / "file" / "x.lock"):
        assert waited == []
    with locks_module.waited(tmp_path / "new" / "x.lock"):
        assert len(waited) == 1


def test_without_locks_nobody_is_taken_for_dead(tmp_path, monkeypatch):
    (tmp_path / f".x.{files.HOST}.999999999.abcdef12.tmp").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "acquire", no_locks)
        store.clear_leftovers(tmp_path)
        files.atomic_write(tmp_path / "y", "text")
    assert len(list(tmp_path.iterdir())) == 2
    store.clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["y"]


def test_a_check_of_the_content_finds_what_checksums_cannot(whole, caplog):
    def check(folder):
        if (folder / "b.txt").read_text() != "hello":
            raise ValueError("b.txt is not polite")

    assert store.build_once(whole, fill, check) is None
    store.remove(whole)
    with store.new_folder(whole) as tmp:
        fill(tmp)
        (tmp / "b.txt").write_text("rude!")
    assert store.build_once(whole, fill, check) is not None
    assert "not polite; building it again" in caplog.text
    assert (whole / "b.txt").read_text() == "hello"


def test_a_cache_that_cannot_be_written_names_the_way_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write to the cache .*set LM_CACHE_DIR"):
        store.build_once(tmp_path / "file" / "x", fill)


def test_a_run_directory_is_held_by_one_living_process(tmp_path):
    def enter():
        with store.locked(tmp_path):
            os._exit(0)

    assert in_a_process(enter) == 0  # it died inside
    with store.locked(tmp_path):
        assert in_a_process(enter) == 1
        with (
            pytest.raises(ValueError, match=f"process {os.getpid()} on {files.HOST}: wait"),
            store.locked(tmp_path),
        ):
            pass
    assert in_a_process(enter) == 0


class Inner(msgspec.Struct):
    n: Int


class Outer(msgspec.Struct):
    a: Inner
    rows: list[Int] = []
    size: Number = 0
    ratio: float = 0.0


WRONG = {
    "[]": "Expected `object`, got `array`",
    "{}": "missing required field `a`",
    '{"a": {}}': "missing required field `n` - at `$.a`",
    '{"a": {"n": true}}': "got `bool` - at `$.a.n`",
    '{"a": {"n": "1"}}': "got `str` - at `$.a.n`",
    '{"a": {"n": 9223372036854775808}}': "<= 9223372036854775807 - at `$.a.n`",
    '{"a": {"n": 1}, "rows": [1, "a"]}': "got `str` - at `$.rows[1]`",
    '{"a": {"n": 1}, "size": true}': "got `bool` - at `$.size`",
    '{"a": {"n": 1}, "ratio": "word"}': "got `str` - at `$.ratio`",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_record_of_another_form_is_refused_with_the_path_of_what_is_wrong(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DamagedError) as refused:
        files.read_record(path, Outer)
    assert str(refused.value).startswith(f"{path} is not what was written: ")
    assert WRONG[text] in str(refused.value)


def test_a_record_may_hold_more_and_name_what_is_not_finite(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": {"n": 1, "m": [null]}, "more": {}, "size": 1.5, "ratio": "inf"}')
    record = files.read_record(path, Outer)
    assert (record.a.n, record.size, record.ratio) == (1, 1.5, float("inf"))
    path.write_text('{"a": {"n": 1}, "ratio": NaN}')
    assert math.isnan(files.read_record(path, Outer).ratio)


STRANGE = {
    "a link": lambda p: p.symlink_to("/etc/hostname"),
    "a pipe": lambda p: os.mkfifo(p),
    "a folder": lambda p: p.mkdir(),
    "no text": lambda p: p.write_bytes(b"\xff"),
    "a terabyte": lambda p: (p.touch(), os.truncate(p, 1 << 40)),
    "deep": lambda p: p.write_text("[" * 100_000),
    "digits": lambda p: p.write_text("9" * 10_000),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_json_that_is_no_small_plain_file_is_refused(kind, tmp_path):
    STRANGE[kind](tmp_path / "a.json")
    with pytest.raises(DamagedError, match=r"a\.json"):
        files.read_json(tmp_path / "a.json")


def test_links_and_pipes_are_found_at_any_depth(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    files.no_links(tmp_path)
    (tmp_path / "a" / "b" / "out").symlink_to("/tmp")
    with pytest.raises(DamagedError, match="a/b/out is not a plain file"):
        files.no_links(tmp_path)


def test_atomic_write_replaces_or_keeps(tmp_path, monkeypatch):
    path = tmp_path / "f"
    files.atomic_write(path, "old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError):
        files.atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_fingerprints_depend_on_values_and_not_on_their_order():
    assert files.fingerprint({"a": 1, "b": 2}) == files.fingerprint({"b": 2, "a": 1})
    assert files.fingerprint({"a": 1}) != files.fingerprint({"a": 1.5})
    assert files.fingerprint([1, 2]) != files.fingerprint([2, 1])


def test_where_locks_do_not_work_a_run_directory_is_entered_with_one_warning(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    with store.locked(tmp_path):
        pass
    (warning,) = caplog.messages
    assert f"{tmp_path} cannot be locked" in warning and "No locks available" in warning


def test_a_rank_left_in_the_environment_opens_no_held_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    refused = pytest.raises(ValueError, match="is being written")
    with store.locked(tmp_path), refused, store.locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_syncs_no_folder_is_named_once(tmp_path, monkeypatch, caplog, number):
    """Such a folder, on some network disks, ended every run at its first file."""
    plain = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        plain(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("a", "b"):
        files.atomic_write(tmp_path / name, name)
        with store.new_folder(tmp_path / f"folder {name}") as folder:
            (folder / "x").touch()
    assert (tmp_path / "b").read_text() == "b" and (tmp_path / "folder b" / "x").exists()
    told = [text for text in caplog.messages if os.strerror(number) in text]
    assert len(told) == 1 and "does not sync folders" in told[0]


def test_a_folder_that_cannot_be_synced_for_another_reason_is_an_error(tmp_path, monkeypatch):
    def fsync(fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="broken"):
        files.sync_folder(tmp_path)


@pytest.mark.faults
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs namespaces of processes")
def test_containers_with_one_host_name_and_equal_numbers_leave_each_other_alone(tmp_path):
    """Each was process 1 of the host, and took the folder of the other for a dead one's."""
    fill = f"""
import os, sys, time
from pathlib import Path
from lm.system import store
with store.new_folder(Path({str(tmp_path)!r}, sys.argv[1])) as folder:
    (folder / "pid").write_text(str(os.getpid()))
    Path(sys.argv[1] + ".begun").touch()
    while not Path(sys.argv[2]).exists():
        time.sleep(0.02)
"""
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("this machine makes no namespaces")
    words = [*apart, sys.executable, "-c", fill]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen([*words, "a", "b.begun"], env=env)
    while not Path("a.begun").exists():
        assert first.poll() is None
        time.sleep(0.02)
    assert subprocess.run([*words, "b", "a.begun"], env=env).returncode == 0
    assert first.wait(60) == 0
    assert [(tmp_path / name / "pid").read_text() for name in "ab"] == ["1", "1"]
    store.verify(tmp_path / "a")
    assert not list(tmp_path.glob(".*.tmp"))
