"""A stand-in for the Hugging Face hub on this machine, for the real client.

    with HubServer() as hub:                    # HF_ENDPOINT=hub.url
        hub.put("data/train-00000-of-00001.parquet", content)

It holds one set, OWNER/SET, of which each `put` makes a new commit. `hub.mode` may change at any
time: ok, gated, hang (accepts and never answers), cut (half of each file is sent).
"""

import hashlib
import json
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

from tests.local_server import LocalServer


class HubServer(LocalServer):
    def __init__(self) -> None:
        super().__init__(Handler)
        self.mode = "ok"
        self.commits: dict[str, dict[str, bytes]] = {}  # the files of each
        self.head = ""
        self.configs: Any = None  # of the set's card
        self.requests: list[str] = []

    def put(self, name: str, content: bytes) -> str:
        """Add a file in a new commit, whose name is returned."""
        there = {**self.commits.get(self.head, {}), name: content}
        self.head = hashlib.sha1(f"{self.head}{name}{content!r}".encode()).hexdigest()
        self.commits[self.head] = there
        return self.head


class Handler(BaseHTTPRequestHandler):
    to: HubServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.to
        path = unquote(self.path).split("?")[0]
        hub.requests.append(path)
        parts = path.strip("/").split("/")
        if hub.mode == "hang":
            hub.release.wait()
        elif hub.mode == "gated":
            self.refuse(403, "GatedRepo")
        elif parts[:2] == ["api", "datasets"] and len(parts) in (4, 6):
            self.tell(parts[2:4], parts[5] if len(parts) == 6 else "main")
        elif parts[0] == "datasets" and parts[3] == "resolve":
            self.send(parts[1:3], parts[4], "/".join(parts[5:]))
        else:
            self.refuse(404, "RepoNotFound")

    do_HEAD = do_GET

    def tell(self, name: list[str], revision: str) -> None:
        hub = self.to
        sha = hub.head if revision == "main" else revision
        if name != ["OWNER", "SET"]:
            self.refuse(401, "RepoNotFound")
        elif sha not in hub.commits:
            self.refuse(404, "RevisionNotFound")
        else:
            siblings = [{"rfilename": file} for file in hub.commits[sha]]
            about = {"id": "OWNER/SET", "sha": sha, "siblings": siblings, "tags": []}
            about["cardData"] = {"configs": hub.configs} if hub.configs else {}
            self.reply(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def send(self, name: list[str], revision: str, file: str) -> None:
        content = self.to.commits.get(revision, {}).get(file)
        if name != ["OWNER", "SET"] or content is None:
            self.refuse(404, "EntryNotFound")
            return
        etag = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": revision, "ETag": f'"{etag}"'}
        self.reply(200, content, headers, cut=self.to.mode == "cut")

    def refuse(self, code: int, why: str) -> None:
        self.reply(code, b"", {"X-Error-Code": why, "X-Error-Message": why})

    def reply(self, code: int, body: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = cut or self.close_connection
