"""A report leads to each run's lens, findings and page in W&B, and trusts none of the files."""

import json
from pathlib import Path

import pytest

from lm.report import links, page, records
from lm.settings.commands import ReportConfig
from tests.browser import needs_browser

FINDINGS = [
    {"name": "curve", "verdict": "ok", "detail": "level"},
    {"name": "gap", "verdict": "look", "detail": "3 < 4 nats", "advice": "more text"},
]


@pytest.fixture
def run(fake_run):
    path = fake_run("outputs/runs/d/a b#1")
    (path / "lens.html").write_text("<title>the lens</title>")
    (path / "doctor.json").write_text(json.dumps(FINDINGS))
    (path / "wandb.json").write_text('{"id": "x", "url": "https://wandb.ai/me/p/runs/x"}')
    return path


def test_a_run_leads_to_its_lens_its_findings_and_its_page(run):
    (record,) = records.find([Path("outputs")])
    assert links.of_run(record, Path("outputs")) == {
        "lens": "runs/d/a%20b%231/lens.html",
        "doctor": [FINDINGS[1]],
        "wandb": "https://wandb.ai/me/p/runs/x",
    }


@pytest.mark.parametrize("text", ["", "[", "[1]", "{}", '{"id": 1}', "[{}]"])
def test_damaged_files_give_no_links_and_no_error(text, run):
    (record,) = records.find([Path("outputs")])
    (run / "lens.html").unlink()
    (run / "doctor.json").write_text(text)
    (run / "wandb.json").write_text(text)
    assert links.of_run(record, Path("outputs")) == {"lens": None, "doctor": [], "wandb": None}


@pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", None])
def test_an_address_that_is_no_web_page_is_not_followed(url, run):
    (run / "wandb.json").write_text(json.dumps({"id": "x", "url": url}))
    (record,) = records.find([Path("outputs")])
    assert links.of_run(record, Path("outputs"))["wandb"] is None


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_links_on_the_page_are_followed(width, dark, browsers, run, fake_run, tmp_path):
    fake_run("outputs/runs/d/b", "model=gru", scores=(8.0, 4.0))
    page.write(ReportConfig(out=str(tmp_path / "reports/page.html")), [tmp_path / "outputs"])
    with browsers(width=width, dark=dark) as browser:
        browser.open(tmp_path / "reports/page.html")
        assert "model.name" in browser.text("#diff") and "4.0000" in browser.text("#diff")
        browser.click("#all summary")
        assert "3 < 4 nats" in browser.text("#all") and "more text" in browser.text("#all")
        overflow = "const e = document.documentElement; return e.scrollWidth - e.clientWidth"
        assert browser.script(overflow) <= 0
        wandb = "return document.querySelectorAll('#all .see a')[1].href"
        assert browser.script(wandb) == "https://wandb.ai/me/p/runs/x"
        browser.click("#all .see a")
        assert browser.script("return document.title") == "the lens"
        assert browser.errors() == []
