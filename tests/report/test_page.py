"""The page needs nothing else, works in a browser and shows nothing raw."""

import functools
import json
import math
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from lm import config
from lm.launch import cli
from lm.report import board, folding, records
from lm.report import page as report_page
from lm.settings.commands import ReportConfig
from lm.system import streams
from lm.system.errors import ConfigError
from tests.browser import needs_browser
from tests.helpers import start, timed


def test_directories_on_the_command_line_become_the_setting_runs():
    found = cli.parse(ReportConfig, ["a", "by=model", "b/c"], paths="runs")
    assert (found.runs, found.by) == (["a", "b/c"], "model")


@pytest.fixture
def page(three_arms, fake_run, tmp_path):
    """The page of three arms with seeds, a run that trains, one that failed, hostile samples."""
    running = fake_run("outputs/runs/d/going", "model=gru", "seed=7", scores=(8.0, 4.0), done=False)
    (running / "samples.jsonl").write_text('{"step": 0, "prompt": "T", "text": "half')
    failed = fake_run("outputs/sweeps/d/s/9", "model=gru", "optimizer.lr=9.0", done=False)
    record = {"overrides": [], "status": "failed", "value": None, "error": "<b>boom</b>"}
    (failed / "result.json").write_text(json.dumps(record))
    for run in records.find([Path("outputs/sweeps")]):
        rows = [
            {"step": s, "prompt": "The ", "text": f"</script><img src=x onerror=alert(1)> {s}"}
            for s in (0, 10, 20)
        ]
        (run.path / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    # By its long name, which must not make the page wider than a phone.
    report_page.write(ReportConfig(out=str(tmp_path / "page.html")), [tmp_path / "outputs"])
    return tmp_path / "page.html"


def test_the_page_needs_nothing_else_and_its_plots_lie_beside_it(page):
    text = page.read_text()
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text and "</script><img" not in text
    assert page.with_name("page-curves.svg").stat().st_size > 1000
    assert page.with_name("page-curves.png").read_bytes().startswith(b"\x89PNG")


def test_what_strangers_wrote_reaches_neither_the_terminal_nor_the_page_raw(
    fake_run, tmp_path, capsys
):
    """A NaN in a list left the page blank, `ratio:NaN` in a sample became `ratio:null`, a value
    that is no number was drawn as 0, and a file's name could clear the terminal."""
    path = fake_run("outputs/runs/d/a", scores=(8.0, math.nan, math.inf, 2.0))
    data = json.loads((path / "data.json").read_text())
    data["corpus"]["source"] = {"files": [{"name": "\x1b[2Jtext"}]}
    (path / "data.json").write_text(json.dumps(data))
    (path / "samples.jsonl").write_text('{"step": 0, "prompt": "T", "text": "ratio:NaN"}\n')
    (run,) = records.find([Path("outputs")])
    run.settings["corpus.name"] = "files"
    run.settings["optimizer.betas"] = [math.nan, 0.9]
    run.summary.floor_bpb = math.nan
    assert run.entropy() == {}
    (ranking,) = folding.rank(folding.fold_seeds([run]))
    view = board.view([ranking])
    assert view["runs"][0]["val"] == [[0, 0.0, 8.0], [300, 3.0, 2.0]]
    streams.print_text(report_page.table(ranking, {}))  # as the command prints it
    printed = capsys.readouterr().out
    assert "text" in printed and "\x1b" not in printed
    html = report_page.html(view, [])
    text = re.search(r'id="data">(.*?)</script>', html)[1]
    (shown,) = json.loads(text, parse_constant=pytest.fail)["runs"]
    assert shown["settings"]["optimizer.betas"] == [None, 0.9]
    assert shown["samples"] == [[0, "T", "ratio:NaN"]]


def test_a_name_of_a_run_can_neither_turn_the_page_nor_hide_a_part_of_itself(fake_run, tmp_path):
    fake_run("outputs/runs/d/a\u202eb\u200bc\u2066d")
    report_page.write(ReportConfig(out=str(tmp_path / "page.html")), [tmp_path / "outputs"])
    text = re.search(r'id="data">(.*?)</script>', (tmp_path / "page.html").read_text())[1]
    (run,) = json.loads(text)["runs"]
    assert run["path"].endswith("a\ufffdb\ufffdc\ufffdd")


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_works_in_a_browser(browsers, page, width, dark):
    with browsers(width=width, dark=dark) as browser:
        browser.open(page)
        assert browser.errors() == []
        assert browser.text("#title").startswith("11 runs")
        assert "transformer" in browser.text("#ranking tbody tr:first-child")
        overflow = "const e = document.documentElement; return e.scrollWidth - e.clientWidth"
        assert browser.script(overflow) <= 0
        assert browser.script("return document.querySelectorAll('#chart path').length") >= 6
        # The keyboard reads the chart, and the boxes choose what it shows.
        browser.script("document.getElementById('chart').focus()")
        browser.press("ArrowRight")
        browser.press("ArrowRight")
        assert "tokens" in browser.text(".tip") and "transformer" in browser.text(".tip")
        lines = "return document.querySelectorAll('#chart path').length"
        before = browser.script(lines)
        browser.click("#ranking tbody tr:first-child input")
        assert browser.script(lines) == before - 2
        browser.click("#axis button:nth-child(2)")
        assert "seconds" in browser.text("#chart")
        assert "<img src=x" in browser.text("#texts")
        assert "model.name" in browser.text("#diff")
        assert "running" in browser.text("#all") and "<b>boom</b>" in browser.text("#all")
        assert browser.errors() == []
        assert len(browser.screenshot()) > 10_000


@needs_browser
def test_one_run_has_no_settings_or_differences_to_go_to(browsers, fake_run, tmp_path):
    fake_run("outputs/runs/d/a")
    one = ReportConfig(out=str(tmp_path / "page.html"))
    report_page.write(one, [Path("outputs")], quiet=True)
    with browsers() as browser:
        browser.open(tmp_path / "page.html")
        assert browser.text("nav").split() == ["Leaderboard", "Curves", "Samples", "Runs"]
        assert "Choose two runs" not in browser.text("main")
        assert browser.errors() == []


@needs_browser
def test_seeds_that_end_at_different_places_alone_are_drawn_on_the_page(
    browsers, fake_run, tmp_path
):
    for seed in (0, 1):
        path = fake_run(f"outputs/runs/d/{seed}", f"seed={seed}")
        row = {"step": 1, "tokens": 1000 + 200 * seed, "seconds": 1.0, "val/bpb": 2.0 + seed}
        (path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    report_page.write(ReportConfig(out=str(tmp_path / "page.html")), [Path("outputs")])
    with browsers() as browser:
        browser.open(tmp_path / "page.html")
        assert browser.script("return document.querySelectorAll('#chart circle').length") == 1
        assert "ends at 2.500" in browser.script("return $('chart').getAttribute('aria-label')")


@needs_browser
def test_what_was_chosen_survives_a_reload(browsers, page):
    with browsers() as browser:
        browser.open(page)
        browser.click("#axis button:nth-child(3)")
        browser.script("location.reload()")
        assert browser.text("#axis [aria-checked=true]") == "FLOPs"


@needs_browser
@pytest.mark.slow
def test_an_open_page_that_is_watched_shows_what_was_written_since(browsers, fake_run, tmp_path):
    watched = ReportConfig(watch=True, out=str(tmp_path / "page.html"))
    fake_run("outputs/runs/d/a")
    report_page.write(watched, [Path("outputs")])
    with browsers() as browser:
        browser.open(tmp_path / "page.html")
        assert browser.text("#title") == "1 run, 1 text"
        fake_run("outputs/runs/d/b", "model=gru")
        report_page.write(watched, [Path("outputs")], quiet=True)
        deadline = time.monotonic() + 20
        while browser.script("return document.title") != "lm report: 2 runs, 1 text":
            assert time.monotonic() < deadline
            time.sleep(0.2)


@timed
@pytest.mark.slow
def test_five_hundred_runs_are_reported_in_ten_seconds_of_computing(fake_run, tmp_path):
    """Processor time, as other work on the machine must not decide; measured 3 s."""
    first = fake_run("outputs/sweeps/d/s/0", scores=[8 - i / 100 for i in range(200)])
    for i in range(1, 500):
        path = first.parent / str(i)
        shutil.copytree(first, path)
        text = (path / config.RESOLVED).read_text()
        text = text.replace("seed: 0", f"seed: {i % 3}").replace("lr: 0.003", f"lr: {1 + i // 3}.0")
        (path / config.RESOLVED).write_text(text)
    start = time.process_time()
    runs = report_page.write(ReportConfig(out=str(tmp_path / "p.html")), [Path("outputs")])
    assert len(runs) == 500 and time.process_time() - start < 10


@pytest.mark.faults
def test_a_watched_page_shows_new_points_and_new_runs_until_it_is_stopped(tiny, tmp_path):
    """Real processes: one run trains all the time, and a second one starts meanwhile."""

    def begin(module, *words, **env):
        # A shell lets what it starts in the background ignore SIGINT, these tests too.
        heeds = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with open(tmp_path / "said", "a") as said:
            return start(module, *words, env=env, stderr=said, preexec_fn=heeds)

    def until(condition):
        deadline = time.monotonic() + 120
        while not (found := condition()):
            assert time.monotonic() < deadline, (tmp_path / "said").read_text()
            time.sleep(0.1)
        return found

    def shown():
        """The state and the tokens of each run on the page, and when that was written."""
        if not (tmp_path / "page.html").exists():
            return {}, ""
        text = (tmp_path / "page.html").read_text()
        data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
        runs = {r["path"]: (r["status"], r["val"][-1][0] if r["val"] else 0) for r in data["runs"]}
        return runs, data["about"]["when"]

    long = (*tiny, "model=bigram", "train.steps=1000000", "train.eval_every=20")
    slow = {"LM_FAILPOINTS": "train.before_step=sleep:0.01"}
    running = begin("lm.train", *long, "hydra.run.dir=outputs/a", "train.sample_every=0", **slow)
    others = []
    try:
        until((tmp_path / "outputs/a/metrics.jsonl").exists)
        watch = begin("lm.report", "watch=true", "out=page.html")
        others.append(watch)
        (runs, first) = until(lambda: shown() if shown()[0] else None)
        assert list(runs) == ["outputs/a"] and runs["outputs/a"][0] == "running"
        before = runs["outputs/a"][1]
        others.append(begin("lm.train", *tiny, "model=bigram_counts", "hydra.run.dir=outputs/b"))
        until(lambda: shown()[0].get("outputs/b", [""])[0] == "done")
        runs, last = shown()
        assert runs["outputs/a"][0] == "running" and runs["outputs/a"][1] > before and last > first
        watch.send_signal(signal.SIGINT)
        assert watch.wait(30) == 130
        said = (tmp_path / "said").read_text()
        assert "until Ctrl-C" in said and "Traceback" not in said
    finally:
        for process in (running, *others):
            process.kill()
            process.wait()


def test_a_report_of_nothing_says_how_to_make_runs(tmp_path):
    with pytest.raises(ValueError, match=r"lm\.train makes one"):
        report_page.write(ReportConfig(), [tmp_path])
    with pytest.raises(ValueError, match="does not exist"):
        records.find([tmp_path / "no"])


def test_a_key_that_no_run_has_is_named(fake_run):
    fake_run("outputs/runs/d/a")
    with pytest.raises(ValueError, match=r"no run has a setting model\.n_layr"):
        report_page.write(ReportConfig(by="model,model.n_layr"), [Path("outputs")])


def test_a_file_of_somebodys_own_is_not_replaced(tmp_path):
    for name in ("mine.html", "mine-curves.png"):
        (tmp_path / name).write_text("the user's own")
        with pytest.raises(ConfigError, match=rf"{name} is there.*: choose another out="):
            report_page.write(ReportConfig(out=str(tmp_path / "mine.html")), [tmp_path])
        assert (tmp_path / name).read_text() == "the user's own"
        (tmp_path / name).unlink()
