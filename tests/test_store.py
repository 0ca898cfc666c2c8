"""Folders are whole or absent, whatever changes, dies or runs at the same time."""

import multiprocessing
import os
import time

import pytest

from lm import store


def fill(folder):
    (folder / "a.bin").write_bytes(bytes(range(256)) * 10)
    (folder / "b.txt").write_text("hello")


@pytest.fixture
def whole(tmp_path):
    with store.new_folder(tmp_path / "x") as tmp:
        fill(tmp)
    return tmp_path / "x"


def test_a_new_folder_appears_whole_and_leaves_nothing_else(whole, tmp_path):
    store.verify(whole)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def interrupted(folder):
    with store.new_folder(folder) as tmp:
        fill(tmp)
        raise KeyboardInterrupt


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
    with pytest.raises(store.DamagedError):
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
    if not locks:  # network file systems where every lock succeeds
        monkeypatch.setattr(store, "fcntl", None)
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


def test_a_killed_builder_does_not_stop_the_next(tmp_path):
    def killed(folder):
        store.build_once(folder, lambda tmp: (fill(tmp), os._exit(9)))

    job = multiprocessing.get_context("fork").Process(target=killed, args=(tmp_path / "x",))
    job.start()
    job.join()
    assert job.exitcode == 9
    assert not (tmp_path / "x").exists()
    assert store.build_once(tmp_path / "x", fill) is not None
    store.verify(tmp_path / "x")


def test_atomic_write_replaces_or_keeps(tmp_path, monkeypatch):
    path = tmp_path / "f"
    store.atomic_write(path, "old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError):
        store.atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_fingerprints_depend_on_values_and_not_on_their_order():
    assert store.fingerprint({"a": 1, "b": 2}) == store.fingerprint({"b": 2, "a": 1})
    assert store.fingerprint({"a": 1}) != store.fingerprint({"a": 1.5})
    assert store.fingerprint([1, 2]) != store.fingerprint([2, 1])
