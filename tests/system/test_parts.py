"""The same bits on any number of processes: a batch in parts, summed in one order."""

import json
import math
import queue
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lm import first_lines, scoring, train
from lm.launch import processes
from lm.record import origin
from lm.record.schemas import CodeRecord
from lm.system import failpoint, parts, ranks
from lm.system.errors import LostRankError
from tests.helpers import TINY_TRANSFORMER, assert_same_run
from tests.system.test_distributed import OFTEN, until

N_PARTS, V, T = 8, 32, 6


def tree(sums: list[Tensor]) -> Tensor:
    """The sum of the first half of the list, plus that of the second."""
    if len(sums) == 1:
        return sums[0]
    half = len(sums) // 2
    return tree(sums[:half]) + tree(sums[half:])


def unequal(n: int) -> list[Tensor]:
    """Tensors whose sum depends on its order."""
    random = torch.Generator().manual_seed(n)
    return list(torch.randn(n, 1000, generator=random) * torch.logspace(-3, 3, n)[:, None])


@pytest.mark.parametrize("n", [1, 2, 8, 32])
def test_a_tree_sum_adds_neighbours_and_keeps_few_sums(n):
    given = unequal(n)
    total = parts.TreeSum()
    for tensor in given:
        total.add([tensor.clone()])
        assert len(total.branches) <= math.log2(n) + 1
    assert torch.equal(total.result()[0], tree(given))
    if n > 2:
        assert not torch.equal(sum(given), tree(given))


@pytest.mark.parametrize("n", [2, 8])
def test_the_processes_sum_as_one_does(n, monkeypatch):
    """Each process is a thread here, and sends through queues."""
    given, found, this = unequal(n), {}, threading.local()
    mail = {(a, b): queue.Queue() for a in range(n) for b in range(n)}

    def exchange(mine: Tensor, theirs: Tensor, other: int) -> None:
        mail[this.rank, other].put(mine.clone())
        theirs.copy_(mail[other, this.rank].get(timeout=30))

    def work(rank: int) -> None:
        this.rank = rank
        found[rank] = parts.over_ranks([given[rank][:1].view(()), given[rank][1:].view(9, 111)])

    monkeypatch.setattr(parts, "exchange", exchange)
    monkeypatch.setattr(parts, "rank", lambda: this.rank)
    monkeypatch.setattr(parts, "n_proc", lambda: n)
    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = tree(given)
    for first, others in found.values():
        assert first.shape == () and others.shape == (9, 111)
        assert torch.equal(torch.cat([first[None], others.flatten()]), expected)


class Net(nn.Module):
    """A loss with dropout, tied weights, a parameter of no use, and two whose gradients are one."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(V, 16)
        self.first, self.second = (nn.Parameter(torch.zeros(T, 16)) for _ in range(2))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = nn.functional.dropout(self.table(x) + (self.first + self.second), 0.3)
        return nn.functional.cross_entropy((h @ self.table.weight.T).flatten(0, 1), y.flatten())


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield Net()


@pytest.mark.parametrize("n_proc", [1, 2, 4, 8])
def test_gradients_and_loss_are_those_of_a_slow_sum_over_all_parts(n_proc, net, monkeypatch):
    """One process after the other; the sums of all of them are then added as a tree."""
    ids = torch.randint(V, (16, T + 1), generator=torch.Generator().manual_seed(1))
    by_part = []
    for part, rows in enumerate(ids.split(16 // N_PARTS)):
        torch.manual_seed(part)
        loss = net(rows[:, :-1], rows[:, 1:]) / N_PARTS
        net.zero_grad()
        loss.backward()
        net.unused.grad = torch.zeros(3)
        by_part.append([loss.detach(), *(p.grad.clone() for p in net.parameters())])
    expected = [tree(list(sums)) for sums in zip(*by_part, strict=True)]

    net.zero_grad()
    hooked = []
    for p in net.parameters():
        p.register_post_accumulate_grad_hook(lambda p: hooked.append((p, p.grad.clone())))
    of_ranks = []
    monkeypatch.setattr(parts, "n_proc", lambda: n_proc)
    monkeypatch.setattr(parts, "over_ranks", lambda sums: of_ranks.append(sums) or sums)
    for rank, rows in enumerate(ids.split(16 // n_proc)):
        monkeypatch.setattr(parts, "rank", lambda rank=rank: rank)
        net.zero_grad()
        hooked.clear()
        loss = parts.gradients(
            net, net, rows[:, :-1], rows[:, 1:], N_PARTS, before_part=torch.manual_seed
        )
        left = [loss, *(p.grad for p in net.parameters())]
        assert all(map(torch.equal, left, of_ranks[-1]))
        assert {p for p, _ in hooked} == set(net.parameters())
        assert len(hooked) == len(left) - 1 and all(torch.equal(p.grad, g) for p, g in hooked)
    found = [tree(list(sums)) for sums in zip(*of_ranks, strict=True)]
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_an_evaluation_is_the_same_whoever_makes_which_pass(n, cfg, monkeypatch):
    model = cfg("model=bigram", "model.context_len=8").model.build(V)
    monkeypatch.setattr(scoring, "TOKENS", 16)  # two windows a pass, and one in the last
    ids = torch.randint(V, (1000,), generator=torch.Generator().manual_seed(2)).numpy()
    alone = scoring.evaluate(model, ids, np.arange(V))
    rows = []
    monkeypatch.setattr(ranks, "n_proc", lambda: n)
    for gathered in (lambda own: rows.append(own) or own, lambda own: torch.cat(rows)):
        monkeypatch.setattr(ranks, "gathered", gathered)
        results = []
        for rank in range(n):
            monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
            results.append(scoring.evaluate(model, ids, np.arange(V)))
    assert results == [alone] * n


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("train.parts=6",), "train.parts=6: give 1, 2, 4, 8 or another power of two"),
        (("train.n_proc=3",), "train.n_proc=3 cannot share train.parts=8 .*give train.n_proc=2"),
        (("train.n_proc=16", "train.batch_size=16"), "give train.parts=16"),
        (("train.batch_size=12",), "train.parts=8: give train.parts=4 or train.batch_size=16"),
        (("train.batch_size=9",), "train.parts=8: give train.batch_size=16"),
        (("train.micro_batch=1",), "train.micro_batch=1 divides a batch, as parts do: leave it"),
        (("train.micro_batch=auto",), "train.micro_batch=auto divides"),
        (("train.n_proc=2", "train.shard=true"), "train.shard=true adds gradients"),
        (("train.compile=graphs",), "train.compile=graphs writes over"),
        (("train.deterministic=false",), "train.deterministic=false allows other bits"),
        (("train.seconds=9",), "train.seconds=9 ends no two runs at the same step"),
    ],
)
def test_what_cannot_have_the_same_bits_is_refused_with_the_way_out(cfg, words, reason):
    with pytest.raises(ValueError, match=reason):
        cfg("train.parts=8", "optimizer=adamw", *words)


def test_another_number_of_processes_is_no_change_of_a_run_in_parts(cfg):
    """Another number of threads is one, as products are divided among them."""
    one = CodeRecord(n_proc=1, threads=1, device="cpu AVX2", parts=8)
    two = CodeRecord(n_proc=2, threads=1, device="cpu AVX2", parts=8)
    assert origin._changes(one, two) == []
    two.threads = 2
    assert origin._changes(one, two) == ["threads was 1 and is 2"]
    plain = CodeRecord(n_proc=1), CodeRecord(n_proc=2)
    assert origin._changes(*plain) == ["n_proc was 1 and is 2"]
    assert cfg("train.parts=8").train.n_threads() == 1
    assert cfg("train.parts=8", "train.threads=2").train.n_threads() == 2
    assert cfg().train.n_threads() == 0


def test_a_run_says_on_how_many_processes_its_bits_are_the_same(monkeypatch):
    monkeypatch.setattr(first_lines.torch, "get_num_threads", lambda: 2)
    cpu = torch.device("cpu")
    line = first_lines.of_bits(8, cpu)
    assert line.endswith("8 parts      the same on 1, 2, 4 or 8 processes of 2 CPU threads each")
    monkeypatch.setattr(ranks, "n_proc", lambda: 3)
    assert "the same on 3 processes of 2 CPU threads each, and no other" in (
        first_lines.of_bits(0, cpu)
    )
    assert "on CPUs alone" in first_lines.of_bits(8, torch.device("meta"))


CASES = {
    "adamw": (*TINY_TRANSFORMER, "model.dropout=0.2"),
    "muon": (*TINY_TRANSFORMER, "model.dropout=0.2", "optimizer=muon", "train.dtype=bfloat16"),
}


def up_to(cfgs: dict, folder: Path, step: int, kill_at: int = 0) -> None:
    """What each process does: train each run to that step, or be killed `kill_at` steps on."""
    for name, cfg in cfgs.items():
        if name == "muon" and kill_at and ranks.rank() == 1:
            failpoint.switch_on(f"train.before_step=kill@{kill_at}")
        until(cfg, folder / name, step)


def to_the_end(cfgs: dict, folder: Path) -> None:
    for name, cfg in cfgs.items():
        train.train(cfg, folder / name)


@pytest.mark.faults
def test_a_run_on_1_2_4_and_again_1_process_with_a_kill_is_a_run_on_one(
    cfg, tiny, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path / "cache"))

    def on(n: int) -> dict:
        how = ("train.parts=4", f"train.n_proc={n}", "train.compile=off")
        return {name: cfg(*tiny, *words, *OFTEN, *how) for name, words in CASES.items()}

    for name, whole in on(1).items():
        (tmp_path / f"{name} whole").mkdir()
        train.train(whole, tmp_path / f"{name} whole")
    up_to(on(1), tmp_path, 4)
    with pytest.raises(LostRankError, match="SIGKILL"):
        processes.spawn(up_to, on(2)["muon"].train, on(2), tmp_path, 9, 5)  # resumed at 3
    processes.spawn(up_to, on(4)["muon"].train, on(4), tmp_path, 16)
    to_the_end(on(1), tmp_path)
    for name in CASES:
        assert_same_run(tmp_path / name, tmp_path / f"{name} whole")
        assert json.loads((tmp_path / name / "code.json").read_text())["exact_resume"]
    assert "the bits may differ" not in caplog.text
