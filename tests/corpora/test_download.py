"""Pinned downloads against servers that fail in every way: lm/corpora/download.py."""

import hashlib
import http.server
import os
import socket
import threading
import time

import pytest

from lm.config import NamesConfig, ShakespeareConfig
from lm.corpora import download
from lm.corpora.download import NAMES, SHAKESPEARE, Pinned
from lm.system import files
from tests.helpers import timed

BODY = b"First Citizen:\nBefore we proceed any further, hear me speak.\n" * 2000  # 122 kB
DATA_DIR = os.environ.get("LM_DATA_DIR")  # the caller's; each test begins without
needs_data = pytest.mark.skipif(not DATA_DIR, reason="LM_DATA_DIR names no folder with names.txt")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waiting, no proxy, and no LM_DATA_DIR but the test's own."""
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    monkeypatch.setattr(download, "DEADLINE", 5.0)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("LM_DATA_DIR", raising=False)


@pytest.fixture
def serve():
    """serve(answer, ...) starts a server whose n-th request gets the n-th answer (the last one
    again after that) and returns (pinned file, list of requests)."""
    servers = []

    def start(*answers):
        requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append(self.path)
                answers[min(len(requests), len(answers)) - 1](self)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        url = f"http://127.0.0.1:{server.server_port}/text"
        return Pinned("text.txt", url, len(BODY), hashlib.sha256(BODY).hexdigest()), requests

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def send(body, status=200, length=True):
    def answer(request):
        request.send_response(status)
        if length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def cut_off(request):
    """Promises all, sends half and closes."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(BODY)))
    request.end_headers()
    request.wfile.write(BODY[: len(BODY) // 2])


def half_then_rest(request):
    """Sends half and closes; asked for the rest, sends that."""
    span = request.headers.get("Range")
    if span is None:
        cut_off(request)
        return
    start = int(span.removeprefix("bytes=").removesuffix("-"))
    request.send_response(206)
    request.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
    request.send_header("Content-Length", str(len(BODY) - start))
    request.end_headers()
    request.wfile.write(BODY[start:])


def another_rest(request):
    """The rest of another file."""
    start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=")[:-1])
    request.send_response(206)
    request.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
    request.end_headers()
    request.wfile.write(b"x" * (len(BODY) - start))


def endless(request):
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(BODY)
    except OSError:
        pass  # the client left


def drip(request):
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(500):
            request.wfile.write(b"x")
            time.sleep(0.01)
    except OSError:
        pass


def hang_up(request):
    request.connection.shutdown(socket.SHUT_RDWR)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


good = send(BODY)


def test_a_good_answer_is_kept_and_asked_for_once(serve, tmp_path):
    file, requests = serve(good)
    assert download.find(file, tmp_path / "new" / "folder").read_bytes() == BODY
    download.find(file, tmp_path / "new" / "folder")
    assert len(requests) == 1
    assert left_in(tmp_path / "new" / "folder") == ["text.txt"]


@pytest.mark.parametrize("length", [True, False])
def test_an_answer_without_its_length_is_as_good(serve, tmp_path, length):
    file, _ = serve(send(BODY, length=length))
    assert download.find(file, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    "answers",
    [[send(b"", 500), send(b"", 503), good], [cut_off, good], [hang_up, hang_up, hang_up, good]],
)
def test_passing_trouble_is_tried_again(serve, tmp_path, answers):
    file, requests = serve(*answers)
    assert download.find(file, tmp_path).read_bytes() == BODY
    assert len(requests) == len(answers)


def test_a_try_goes_on_where_the_one_before_was_cut_off(serve, tmp_path):
    file, requests = serve(half_then_rest)
    assert download.find(file, tmp_path).read_bytes() == BODY
    assert len(requests) == 2


def test_parts_that_do_not_fit_are_thrown_away(serve, tmp_path):
    file, requests = serve(cut_off, another_rest, good)
    assert download.find(file, tmp_path).read_bytes() == BODY
    assert len(requests) == 3
    assert left_in(tmp_path) == ["text.txt"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (send(b"", 500), "500"),
        (cut_off, "ended after 61,000 of 122,000 bytes"),
        (hang_up, "closed connection"),
    ],
)
def test_lasting_trouble_ends_after_four_tries_and_names_the_folder_way(
    serve, tmp_path, answer, says
):
    file, requests = serve(answer)
    with pytest.raises(FileNotFoundError, match=f"4 tries.*{says}.*LM_DATA_DIR") as error:
        download.find(file, tmp_path)
    assert "text.txt" in str(error.value) and "\n" not in str(error.value)
    assert len(requests) == 4
    assert left_in(tmp_path) == []


def test_the_waits_between_tries_double(serve, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    file, _ = serve(send(b"", 503))
    with pytest.raises(FileNotFoundError):
        download.find(file, tmp_path)
    assert waits == [0.001, 0.002, 0.004]


def test_a_page_that_is_gone_is_not_asked_for_again(serve, tmp_path):
    file, requests = serve(send(b"gone", 404))
    with pytest.raises(FileNotFoundError, match=r"404.*LM_DATA_DIR"):
        download.find(file, tmp_path)
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (send(b"<html>Please log in</html>"), "a web page of 26 bytes"),
        (send(b"\n<!DOCTYPE html>" + b"x" * len(BODY)), "more than the 122,000 bytes expected"),
        (send(BODY[:-1] + b"!"), "with the sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"),
        (send(BODY[:-1]), "121,999 bytes with the sha256"),
        (send(b""), "sent 0 bytes"),
        (endless, "more than the 122,000 bytes expected"),
    ],
)
def test_a_wrong_text_is_refused_at_once_and_nothing_is_kept(serve, tmp_path, answer, says):
    file, requests = serve(answer)
    with pytest.raises(ValueError, match=f"{says}.*nothing was kept.*LM_DATA_DIR"):
        download.find(file, tmp_path)
    assert len(requests) == 1
    assert left_in(tmp_path) == []


@timed
def test_a_server_that_never_answers_costs_the_timeout_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        start = time.monotonic()
        with pytest.raises(FileNotFoundError, match=r"4 tries.*timed out.*LM_DATA_DIR"):
            download.find(Pinned("text.txt", url, 1, ""), tmp_path)
        assert time.monotonic() - start < 3
    assert left_in(tmp_path) == []


@timed
def test_a_server_that_drips_is_left_at_the_deadline(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "DEADLINE", 0.1)
    monkeypatch.setattr(download, "TRIES", 1)
    file, _ = serve(drip)
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match="too slow"):
        download.find(file, tmp_path)
    assert time.monotonic() - start < 3  # it would drip for 5 seconds


def test_a_closed_port_is_an_error_that_names_the_folder_way(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(FileNotFoundError, match="LM_DATA_DIR"):
        download.find(Pinned("text.txt", f"http://127.0.0.1:{port}/", 1, ""), tmp_path)


def test_an_interrupt_is_passed_on_and_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "urlopen", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download.find(SHAKESPEARE, tmp_path)
    assert left_in(tmp_path) == []


def test_a_damaged_file_in_the_cache_is_fetched_again(serve, tmp_path):
    file, requests = serve(good)
    (tmp_path / file.name).write_bytes(BODY[:1000])
    assert download.find(file, tmp_path).read_bytes() == BODY
    assert len(requests) == 1


def test_a_file_in_lm_data_dir_is_used_without_a_network(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_bytes(BODY)
    monkeypatch.setenv("LM_DATA_DIR", str(tmp_path))
    file = Pinned("text.txt", "http://127.0.0.1:1/", len(BODY), hashlib.sha256(BODY).hexdigest())
    assert download.find(file, tmp_path / "cache") == tmp_path / "text.txt"
    assert left_in(tmp_path) == ["text.txt"]


def test_a_tilde_that_no_shell_replaced_is_the_home_directory(tmp_path, monkeypatch):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "text.txt").write_bytes(BODY)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LM_DATA_DIR", "~/texts")
    monkeypatch.setenv("LM_CACHE_DIR", "~/cache")
    file = Pinned("text.txt", "http://127.0.0.1:1/", len(BODY), hashlib.sha256(BODY).hexdigest())
    assert download.find(file) == tmp_path / "texts" / "text.txt"
    assert files.cache_dir() == tmp_path / "cache"


def test_a_different_file_in_lm_data_dir_is_refused_with_both_checksums(tmp_path, monkeypatch):
    (tmp_path / "names.txt").write_text("ada\n")
    monkeypatch.setenv("LM_DATA_DIR", str(tmp_path))
    found = hashlib.sha256(b"ada\n").hexdigest()
    with pytest.raises(ValueError, match=f"{found}.*{NAMES.sha256}.*corpus=files"):
        list(NamesConfig().build().documents())


@pytest.mark.parametrize("kind", ["file absent", "folder absent", "folder of that name"])
def test_lm_data_dir_without_the_file_falls_back_to_the_network(serve, tmp_path, monkeypatch, kind):
    local = tmp_path / "local"
    if kind != "folder absent":
        local.mkdir()
    if kind == "folder of that name":
        (local / "text.txt").mkdir()
    monkeypatch.setenv("LM_DATA_DIR", str(local))
    file, _ = serve(good)
    assert download.find(file, tmp_path / "cache").read_bytes() == BODY


def test_lm_data_dir_without_the_file_is_told_where_the_network_fails(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("LM_DATA_DIR", "/nowhere")
    file, _ = serve(send(b"gone", 404))
    with pytest.raises(FileNotFoundError, match=r"LM_DATA_DIR=/nowhere holds no text\.txt: put"):
        download.find(file, tmp_path)


@needs_data
def test_names_are_one_document_a_line(monkeypatch):
    monkeypatch.setenv("LM_DATA_DIR", DATA_DIR)
    names = list(NamesConfig().build().documents())
    assert (len(names), names[0], names[-1]) == (32_033, "emma", "zzyzx")
    assert set("".join(names)) == set("abcdefghijklmnopqrstuvwxyz")


@needs_data
def test_shakespeare_is_one_document_and_its_source_is_its_checksum(monkeypatch):
    monkeypatch.setenv("LM_DATA_DIR", DATA_DIR)
    corpus = ShakespeareConfig().build()
    (text,) = corpus.documents()
    assert (len(text), len(set(text)), text[:14]) == (1_115_394, 65, "First Citizen:")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert corpus.source() == {"name": "shakespeare", "sha256": digest}
