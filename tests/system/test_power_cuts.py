"""After a power cut at any moment, whatever it leaves, a run resumes to the bit or is built again.

    LM_STATES=20000 python -m pytest -m faults tests/system/test_power_cuts.py

goes through every state of all but the last (or as many as that, drawn); without the variable a
sample of them is enough.
"""

import ast
import os
import random
from pathlib import Path

import pytest
import torch

from lm import train
from lm.launch import directory, jobs, main
from lm.models.base import LanguageModel
from lm.record import checkpoint, tracker
from lm.record.state import TrainState
from lm.settings.commands import TunerConfig
from lm.sweep import arms, ranking, study, tuner
from lm.sweep.arms import ArmResult
from lm.system import files, store
from tests.helpers import ROOT, TINY_TRANSFORMER, assert_same_run, rows
from tests.power_cuts import Disk
from tests.sweep.searches import search_space

N_STATES = int(os.environ.get("LM_STATES", 150))  # of each case
SMALL = ("model=gru", "model.n_embd=2", "model.n_hidden=2", "model.context_len=8")


class Parts:
    """A tiny model with its optimizer, whose numbers tell at which step it is."""

    def __init__(self, cfg) -> None:
        made = cfg(*SMALL, "optimizer=adamw")
        self.model: LanguageModel = made.model.build(4)
        self.optimizers = made.optimizer.build(self.model)
        for p in self.model.parameters():
            p.grad = torch.zeros_like(p)
        for optimizer in self.optimizers:
            optimizer.step()  # makes its state

    def tensors(self) -> list[torch.Tensor]:
        found = list(self.model.state_dict().values())
        for optimizer in self.optimizers:
            found += [state[key] for state in optimizer.state.values() for key in sorted(state)]
        return found

    def at(self, step: int, version: int = 0) -> "Parts":
        generator = torch.Generator().manual_seed(100 * step + version)
        for tensor in self.tensors():
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator))
        return self

    def bits(self) -> bytes:
        return b"".join(tensor.numpy().tobytes() for tensor in self.tensors())


@pytest.fixture
def explore(tmp_path, record_property):
    """explore(folder, work, check, first): `check` each state that a power cut may leave."""

    def go(root: Path, work, check, first: object = None, limit: int = N_STATES) -> None:
        disk = Disk(root)
        disk.promised = first
        with disk.recording():
            work(disk)
        place = tmp_path / "after the cut"
        n = 0
        for promised in disk.states(limit, place, random.Random(0)):
            n += 1
            check(place, promised)
        record_property("states after a power cut", n)
        assert n > 10

    return go


class Training:
    """Saves steps of a run in `out`, and says whether what is left of it goes on to the bit."""

    def __init__(self, cfg, keep_last: int = 9) -> None:
        self.cfg = cfg("track=off")
        self.parts = Parts(cfg)
        self.keep_last = keep_last

    def state(self, step: int, version: int = 0) -> TrainState:
        return TrainState(step=step, tokens=8 * step, good_step=version)

    def open(self, out: Path, step: int):
        return tracker.FileTracker(out, self.cfg, TrainState(step=step), lambda state: 0.0)

    def save(self, out: Path, track, step: int, version: int = 0) -> None:
        parts = self.parts.at(step, version)
        track.sync()
        state = self.state(step, version)
        checkpoint.save(out, parts.model, parts.optimizers, state, self.keep_last)

    def step(self, track, step: int) -> None:
        track.log(self.state(step), {"train/loss": 1 / (step + 1)})
        track.samples(self.state(step), [{"prompt": "p", "text": f"{step}"}])

    def check(self, out: Path, promised: int | None, versions: int = 1) -> int:
        """The step at which it goes on; raises where anything is not as it was."""
        with store.locked(out):
            return self.go_on(out, promised or 0, versions)

    def go_on(self, out: Path, promised: int, versions: int) -> int:
        found = checkpoint.resume(out, self.parts.model, self.parts.optimizers)
        step = 0
        if found is not None:
            step = found.step
            bits = self.parts.bits()
            assert found.good_step < versions
            assert bits == self.parts.at(step, found.good_step).bits()
            assert found == self.state(step, found.good_step)
        assert step >= promised
        with self.open(out, step) as track:
            for name in ("metrics.jsonl", "samples.jsonl"):
                assert [row["step"] for row in rows(out, name)] == list(range(step))
            for later in range(step, step + 2):
                self.step(track, later)
            self.save(out, track, step + 2)
        again = checkpoint.resume(out, self.parts.model, self.parts.optimizers)
        assert again == self.state(step + 2) and not list(out.rglob("*.tmp"))
        return step


def begun(training: Training, out: Path, *saved: int) -> Path:
    """A run directory with checkpoints at these steps."""
    out.mkdir(parents=True)
    with training.open(out, 0) as track:
        for step in range(max(saved, default=0)):
            if step in saved:
                training.save(out, track, step)
            training.step(track, step)
        if saved:
            training.save(out, track, saved[-1])
    return out


def write_and_rename(path: Path, syncs: str) -> None:
    with open(path.with_suffix(".new"), "w") as file:
        file.write("new")
        file.flush()
        if "file" in syncs:
            os.fsync(file.fileno())
    os.replace(path.with_suffix(".new"), path)
    if "folder" in syncs:
        files.sync_folder(path.parent)


@pytest.mark.parametrize(("syncs", "kept"), [
    ("file folder", {"old", "new"}), ("file", {"old", "new"}),
    ("folder", {"old", "new", "n", "", "\0" * 3, "\0ew"}), ("", {"old", "new", "n", ""}),
])  # fmt: skip
def test_the_replay_finds_what_a_writer_that_does_not_sync_may_lose(syncs, kept, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x").write_text("old")
    disk = Disk(folder)
    with disk.recording():
        write_and_rename(folder / "x", syncs)
        disk.promise("new")
    found: dict[object, set[str]] = {None: set(), "new": set()}
    for promised in disk.states(1000, tmp_path / "after", random.Random(0)):
        found[promised].add((tmp_path / "after/x").read_bytes().decode("latin-1"))
    assert kept <= found[None] | found["new"]
    assert ("file" in syncs) == (found[None] | found["new"] == {"old", "new"})
    assert (found["new"] == {"new"}) == (syncs == "file folder")


@pytest.mark.faults
def test_a_save_is_there_or_the_one_before(cfg, tmp_path, explore):
    training = Training(cfg)
    out = begun(training, tmp_path / "run", 1)

    def work(disk):
        with training.open(out, 1) as track:
            training.step(track, 1)
            training.save(out, track, 2)
            disk.promise(2)
            training.step(track, 2)

    explore(out, work, training.check, first=1)


@pytest.mark.faults
def test_the_first_save_of_a_new_run_is_there_or_the_run_begins_again(cfg, tmp_path, explore):
    training = Training(cfg)
    top = tmp_path / "top"
    top.mkdir()

    def work(disk):
        out = top / "outputs/run"
        directory.make(out)
        with store.locked(out), training.open(out, 0) as track:
            training.step(track, 0)
            training.save(out, track, 1)
            disk.promise(1)

    def check(place, promised):
        out = place / "outputs/run"
        directory.check(out)
        directory.make(out)
        training.check(out, promised)

    explore(top, work, check)


@pytest.mark.faults
def test_a_save_in_place_of_one_of_its_step_is_that_or_the_new_one(cfg, tmp_path, explore):
    training = Training(cfg)
    out = begun(training, tmp_path / "run", 1, 2)

    def work(disk):
        with training.open(out, 2) as track:
            training.save(out, track, 2, version=1)

    explore(out, work, lambda place, promised: training.check(place, promised, versions=2), first=2)


@pytest.mark.faults
def test_pruning_takes_nothing_that_is_needed(cfg, tmp_path, explore):
    training = Training(cfg)
    out = begun(training, tmp_path / "run", 1, 2, 3)
    training.keep_last = 1

    def work(disk):
        with training.open(out, 3) as track:
            training.step(track, 3)
            training.save(out, track, 4)
            disk.promise(4)

    explore(out, work, training.check, first=3)


@pytest.mark.faults
def test_going_back_to_an_earlier_checkpoint_loses_none_that_is_needed(cfg, tmp_path, explore):
    training = Training(cfg)
    out = begun(training, tmp_path / "run", 1, 2, 3)
    explore(out, lambda disk: checkpoint.remove_after(out, 1), training.check, first=1)


@pytest.mark.faults
@pytest.mark.parametrize("before", ["nothing", "a damaged one"])
def test_a_stage_of_the_cache_is_whole_or_built_again(before, tmp_path, explore):
    def make(folder: Path) -> None:
        (folder / "a.bin").write_bytes(bytes(range(256)))
        (folder / "b.txt").write_text("hello")

    top = tmp_path / "top"
    top.mkdir()
    if before != "nothing":
        store.build_once(top / "cache/x", make)
        (top / "cache/x/a.bin").write_bytes(b"damaged")

    def work(disk):
        store.build_once(top / "cache/x", make)
        disk.promise("built")

    def check(place, promised):
        folder = place / "cache/x"
        assert (store.build_once(folder, make) is None) or not promised
        store.verify(folder)
        assert (folder / "a.bin").read_bytes() == bytes(range(256))
        store.clear_leftovers(place / "cache")
        assert not list(place.rglob("*.tmp"))

    explore(top, work, check)


@pytest.mark.faults
def test_a_search_keeps_every_score_that_it_was_told(tmp_path, explore):
    top = tmp_path / "top"
    top.mkdir()
    fixed, searched = search_space("a=interval(0.0,1.0)")

    def work(disk):
        root = top / "sweeps/search"
        directory.mark_sweep(root)
        search = tuner.Search(root, TunerConfig(n_trials=3), fixed, searched)
        for n in range(2):
            (trial,) = search.next_trials()
            out = root / str(trial.number)
            files.make_folder(out)
            main.write_result(out, ArmResult(["a=1"], value=float(n)))
            tuner.record_trial(search.study, trial, root)
            search.held.let_go(trial.number)
            disk.promise(n + 1)

    def check(place, promised):
        root = place / "sweeps/search"
        directory.check_sweep(root)
        directory.mark_sweep(root)
        study.same_search(root, fixed, searched)
        search = tuner.Search(root, TunerConfig(n_trials=3), fixed, searched)
        told = [t.value for t in search.study.get_trials(deepcopy=False) if t.value is not None]
        assert told == [0.0, 1.0][: len(told)] and len(told) >= (promised or 0)
        while batch := search.next_trials():
            for trial in batch:
                search.study.tell(trial, 7.0)
        assert len(search.study.get_trials(deepcopy=False)) == 3

    explore(top, work, check)


@pytest.mark.faults
def test_the_result_of_an_arm_is_there_or_the_arm_has_none(tmp_path, explore):
    top = tmp_path / "top"
    top.mkdir()
    result = ArmResult(["seed=0"], value=2.5)

    def work(disk):
        root = top / "sweeps/grid"
        directory.mark_sweep(root)
        for number, name in enumerate(("0", "elsewhere")):
            files.make_folder(root / name)
            arms.register(root, number, root / name)
            main.write_result(root / name, result)
            disk.promise(number + 1)

    def check(place, promised):
        root = place / "sweeps/grid"
        directory.check_sweep(root)
        found = ranking.read(root)
        assert len(found) >= (promised or 0)
        assert all(there == result for there in found.values())
        directory.mark_sweep(root)
        for number, name in enumerate(("0", "elsewhere")):
            files.make_folder(root / name)
            arms.register(root, number, root / name)
            main.write_result(root / name, result)
        assert len(ranking.read(root)) == 2

    explore(top, work, check)


@pytest.mark.faults
def test_a_run_whose_power_is_cut_ends_like_one_that_never_stopped(
    cfg, tiny, tmp_path, explore, monkeypatch
):
    """The whole of it, from its directory to its summary; this takes a run for each state."""
    monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path / "cache"))
    words = (*tiny, *TINY_TRANSFORMER, "train.steps=4", "train.eval_every=2", "train.save_every=2")
    made = cfg(*words, "train.sample_every=3", "train.sample_len=4")
    out = Path("outputs/run")

    def start() -> jobs.Job:
        job = jobs.Job(made, out, [], hydra={".hydra/config.yaml": "a: 1\n"}, besides=(".hydra",))
        directory.check(out, job.besides)
        directory.make(out)
        return job

    def work(disk):
        train.run_job(start())
        disk.promise("complete")

    whole = tmp_path / "whole"
    top = tmp_path / "top"
    for folder in (whole, top):
        folder.mkdir()
    monkeypatch.chdir(whole)
    train.run_job(start())
    monkeypatch.chdir(top)

    def check(place, promised):
        os.chdir(place)
        assert (out / "summary.json").exists() or not promised
        train.run_job(start())
        assert_same_run(out, whole / out, 4)

    explore(top, work, check, limit=min(N_STATES // 5, 600))


NAMES = {"os.mkdir", "os.makedirs", "os.rename", "os.replace", "os.renames", "os.link"}
OURS = ("durable.py", "files.py")
NAMES |= {"shutil.move", "shutil.copytree", "mkdtemp", "tempfile.mkdtemp"}
# Where else a folder is made or a name is given, and why no power cut matters there.
ALLOWED = {
    ("store.py", "os.rename"): "synced behind it; another process may have been first",
    ("store.py", "mkdir"): "temporary",
    ("wandb_artifact.py", "mkdir"): "below a temporary folder, which sync_tree syncs",
    ("wandb_artifact.py", "rename"): "below a temporary folder, which sync_tree syncs",
    ("wandb_mirror.py", "touch"): "a mark beside what W&B's client never syncs",
    ("preflight.py", "touch"): "a trial, deleted at once",
}


def test_folders_are_made_and_names_given_in_the_one_place_that_syncs_them():
    found = set()
    for path in (ROOT / "lm").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call):
                name = ast.unparse(call.func)
                owner, _, last = name.rpartition(".")
                is_method = bool(owner) and last in ("mkdir", "rename", "touch", "hardlink_to")
                if name in NAMES or (is_method and owner not in ("files", "durable")):
                    found.add((path.name, name if name in NAMES else last))
    assert {call for call in found if call[0] not in OURS} - set(ALLOWED) == set()
    assert set(ALLOWED) <= found
