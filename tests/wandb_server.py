"""A stand-in for the W&B API on this machine, for the real client: enough to train, sync, resume.

    with WandbServer() as server:
        ...                      # WANDB_BASE_URL=server.url, WANDB_API_KEY=server.key
        server.runs["a1b2c3d4"].rows

`server.mode` may change at any time: ok, hang (accepts and never answers), error (500), forbidden
(403); `server.delay` is the time until each answer in seconds. Unknown operations are answered with
{} and kept in `server.unknown`, so that a new client shows itself.
"""

import gzip
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.local_server import LocalServer


@dataclass
class Run:
    """What the server was told of one run."""

    variables: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    upserts: int = 0
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)  # by name

    @property
    def state(self) -> str:
        return {None: "running", 0: "finished"}.get(self.exit_code, "failed")


class WandbServer(LocalServer):
    key = "0" * 40

    def __init__(self) -> None:
        super().__init__(Handler)
        self.mode = "ok"
        self.delay = 0.0
        self.runs: dict[str, Run] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.committed: list[str] = []
        self.used: list[str] = []  # artifacts that are inputs of a run
        self.alerts: list[str] = []
        self.files: dict[str, bytes] = {}  # by name
        self.blobs: dict[str, bytes] = {}  # by the MD5 of their content, in hex
        self.operations: list[str] = []
        self.unknown: set[str] = set()
        self.stop_requested = False
        self.refused: dict[str, str] = {}  # what is said in place of an answer, by the operation
        self.views: dict[str, dict[str, Any]] = {}  # saved views and reports, by their ids
        self.linked: list[str] = []  # REGISTRY/COLLECTION <- MODEL

    # ---------------------------------------------------------------------------- the answers

    def stream(self, run: str, body: dict[str, Any]) -> dict[str, Any]:
        """The rows, the end and the alerts that a run sends while it goes on."""
        there = self.runs.setdefault(run, Run())
        for name, file in body.get("files", {}).items():
            if name == "wandb-history.jsonl":
                there.rows += [json.loads(line) for line in file["content"]]
            if name == "wandb-summary.json":
                there.summary = json.loads(file["content"][-1])
        if body.get("exitcode") is not None:
            there.exit_code = body["exitcode"]
        return {"exitcode": None, "limits": {}, "stopped": self.stop_requested}

    def answer(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of one GraphQL operation."""
        self.operations.append(name)
        if "RunResumeStatus" in name:
            return {"model": self.bucket_status(variables)}
        method = getattr(self, f"on_{name}", None)
        if method is None:
            self.unknown.add(name)
            return {}
        return method(variables)

    def stored(self, path: str) -> bytes | None:
        """A manifest by its artifact, a run's file by name, or one of an artifact by its MD5."""
        if path.startswith("/get/"):
            return self.files.get(path.removeprefix("/get/"))
        if path.startswith("/run/"):
            _, _, uid, name = path.split("/")
            return self.runs[uid].files.get(name)
        return next((self.blobs[w] for w in path.split("/") if w in self.blobs), None)

    def on_Viewer(self, _: dict) -> dict:
        teams = {"edges": []}
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}",
                           "teams": teams}}  # fmt: skip

    def on_GetDefaultEntity(self, _: dict) -> dict:
        return {"viewer": {"id": "u", "entity": "me"}}

    def on_ServerInfo(self, _: dict) -> dict:
        versions = {"max_cli_version": "9.9.9", "min_cli_version": "0.1"}
        return {"serverInfo": {"cliVersionInfo": versions, "latestLocalVersionInfo": None,
                               "features": []}}  # fmt: skip

    def on_ServerFeaturesQuery(self, _: dict) -> dict:
        return {"serverInfo": {"features": []}}

    def bucket_status(self, variables: dict) -> dict:
        run = self.runs.get(variables.get("name", ""))
        bucket = None
        if run is not None:
            tail = json.dumps([json.dumps(row) for row in run.rows[-1:]])
            bucket = {
                "id": variables["name"], "name": variables["name"],
                "config": run.variables.get("config", "{}"),
                "summaryMetrics": json.dumps(run.summary),
                "displayName": None, "tags": [], "wandbConfig": '{"t": {}}',
                "historyLineCount": len(run.rows), "eventsLineCount": 0, "logLineCount": 0,
                "historyTail": tail, "eventsTail": "[]",
            }  # fmt: skip
        return {"id": "p", "name": "lm", "entity": {"id": "e", "name": "me"}, "bucket": bucket}

    def on_UpsertBucket(self, variables: dict) -> dict:
        name = variables.get("name") or variables.get("id")
        new = name not in self.runs
        run = self.runs.setdefault(name, Run())
        run.upserts += 1
        run.variables |= {k: v for k, v in variables.items() if v is not None}
        project = {"id": "p", "name": variables.get("project") or "lm",
                   "entity": {"id": "e", "name": "me"}}  # fmt: skip
        bucket = {"id": name, "name": name, "displayName": variables.get("displayName"),
                  "description": None, "config": variables.get("config"), "sweepName": None,
                  "historyLineCount": 0 if new else len(run.rows), "project": project}  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def on_CreateRunFiles(self, variables: dict) -> dict:
        run = variables["run"]
        files = [
            {"name": n, "uploadUrl": f"{self.url}/put/{n}?run={run}"} for n in variables["files"]
        ]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def on_Runs(self, variables: dict) -> dict:
        """The runs of the project `lm`, the only one that is there."""
        if variables["project"] != "lm":
            return {"project": None}
        wanted = json.loads(variables["filters"]).get("group")
        edges = []
        for uid, run in self.runs.items():
            about = run.variables
            if wanted in (None, about.get("groupName")):
                node = {
                    "id": uid, "name": uid, "displayName": about.get("displayName"),
                    "state": run.state, "config": about.get("config", "{}"), "tags": [],
                    "group": about.get("groupName"), "jobType": about.get("jobType"),
                    "summaryMetrics": json.dumps(run.summary), "user": {"name": "me"},
                    "createdAt": "2026-01-01T00:00:00", "systemMetrics": "{}",
                }  # fmt: skip
                edges.append({"node": node, "cursor": uid})
        n_before = [edge["cursor"] for edge in edges].index(variables["cursor"]) + 1 if (
            variables.get("cursor")) else 0  # fmt: skip
        page = edges[n_before : n_before + variables["perPage"]]
        more = n_before + len(page) < len(edges)
        there = {"edges": page, "pageInfo": {"endCursor": None, "hasNextPage": more}}
        return {"project": {"internalId": "p", "runCount": len(edges), "runs": there}}

    def on_Run(self, variables: dict) -> dict:
        """One run of a project."""
        run = self.runs[variables["name"]]
        about = run.variables
        node = {
            "id": variables["name"], "name": variables["name"], "projectId": "1",
            "displayName": about.get("displayName"), "notes": about.get("notes"),
            "tags": about.get("tags") or [], "state": run.state, "systemMetrics": "{}",
            "config": about.get("config", "{}"), "summaryMetrics": json.dumps(run.summary),
            "createdAt": "2026-01-01T00:00:00", "user": {"name": "me"}, "sweepName": None,
        }  # fmt: skip
        return {"project": {"internalId": "p", "run": node}}

    def on_RunSampledHistory(self, variables: dict) -> dict:
        """Of a run's rows those that have all keys, with these and no others."""
        found = []
        for spec in map(json.loads, variables["specs"]):
            rows = [r for r in self.runs[variables["name"]].rows if r.keys() >= set(spec["keys"])]
            found.append([{key: row[key] for key in spec["keys"]} for row in rows])
        return {"project": {"run": {"sampledHistory": found}}}

    def on_RunFiles(self, variables: dict) -> dict:
        uid = variables["name"]
        edges = [
            {"node": {"id": name, "name": name, "sizeBytes": len(data), "md5": "", "cursor": "c",
                      "url": f"{self.url}/run/{uid}/{name}", "directUrl": ""}, "cursor": name}
            for name, data in self.runs[uid].files.items() if name in variables["fileNames"]
        ]  # fmt: skip
        files = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return {"project": {"internalId": "p", "run": {"fileCount": len(edges), "files": files}}}

    def on_View(self, variables: dict) -> dict:
        known = [
            {"node": {"id": uid, "displayName": view["displayName"], "spec": view["spec"]}}
            for uid, view in self.views.items() if view["name"] == variables["viewName"]
        ]  # fmt: skip
        return {"project": {"allViews": {"edges": known}}}

    def on_upsertView(self, variables: dict) -> dict:
        uid = variables.get("id") or f"view{len(self.views)}"
        self.views[uid] = variables
        about = {"entityName": variables["entityName"], "name": variables["projectName"]}
        view = {"id": uid, "name": variables["name"], "displayName": variables["displayName"],
                "type": variables["type"], "description": variables["description"],
                "project": {"id": "p"} | about, "spec": json.loads(variables["spec"]),
                "updatedAt": "2026-01-01T00:00:00"}  # fmt: skip
        return {"upsertView": {"view": view, "inserted": not variables.get("id")}}

    on_UpsertView2 = on_upsertView

    def on_NotifyScriptableRunAlert(self, variables: dict) -> dict:
        self.alerts.append(variables["title"])
        return {"notifyScriptableRunAlert": {"success": True}}

    def on_ArtifactType(self, _: dict) -> dict:
        return {"project": {"artifact": None}}

    def on_ArtifactMembershipByName(self, variables: dict) -> dict:
        name, alias = variables["name"].split(":")
        known = [uid for uid, a in self.artifacts.items() if a["artifactCollectionName"] == name]
        if not known or alias not in ("latest", "best", f"v{len(known) - 1}"):
            return {"project": {"artifactCollectionMembership": None}}
        found = self.membership(known, name, variables["project"], variables["entity"])
        return {"project": {"artifactCollectionMembership": found}}

    def membership(self, known: list[str], name: str, project: str, entity: str) -> dict:
        """What is said of the newest of the artifacts `known`, in the collection `name`."""
        about = {"id": "p", "internalId": "p", "name": project, "entity": {"name": entity}}
        given = self.artifacts[known[-1]]
        sequence = {"__typename": "ArtifactSequence", "name": name, "project": about}
        artifact = {
            "__typename": "Artifact", "id": known[-1], "artifactSequence": sequence,
            "versionIndex": len(known) - 1, "artifactType": {"name": given["artifactTypeName"]},
            "description": None, "metadata": given["metadata"], "ttlDurationSeconds": 0,
            "ttlIsInherited": False, "tags": [], "historyStep": None, "state": "COMMITTED",
            "size": 1, "digest": given["digest"], "commitHash": "c", "fileCount": 1,
            "createdAt": "2026-01-01T00:00:00", "updatedAt": None,
        }  # fmt: skip
        return {
            "__typename": "ArtifactCollectionMembership", "id": "m", "createdAt": "2026-01-01",
            "versionIndex": len(known) - 1, "aliases": [], "artifactCollection": sequence,
            "artifact": artifact,
        }  # fmt: skip

    def on_ArtifactByID(self, variables: dict) -> dict:
        uid = variables["id"]
        name = self.artifacts[uid]["artifactCollectionName"]
        return {"artifact": self.membership([uid], name, "lm", "me")["artifact"]}

    def on_FetchOrgInfoFromEntity(self, _: dict) -> dict:
        """One registry, called models, in the organization of `me`."""
        about = {"name": "org", "orgEntity": {"name": "org-entity"}}
        return {"entity": {"organization": about, "user": {"organizations": [about]}}}

    def on_LinkArtifact(self, variables: dict) -> dict:
        given = variables["input"]
        project, name = given["projectName"], given["artifactPortfolioName"]
        if project != "wandb-registry-models":
            return {"result": None}
        artifact = self.artifacts[given["artifactID"]]
        self.linked.append(f"{project}/{name} <- {artifact['artifactCollectionName']}")
        found = self.membership([given["artifactID"]], name, project, "org-entity")
        return {"result": {"versionIndex": 0, "artifactMembership": found}}

    def on_GetProjects(self, variables: dict) -> dict:
        node = {"id": "p", "name": "lm", "entityName": variables["entity"], "isBenchmark": False,
                "createdAt": "2026-01-01", "user": None}  # fmt: skip
        more = {"endCursor": None, "hasNextPage": False}
        return {"models": {"edges": [{"node": node, "cursor": "c"}], "pageInfo": more}}

    def on_FetchArtifactManifest(self, variables: dict) -> dict:
        file = {"directUrl": f"{self.url}/get/manifest/{variables['id']}"}
        return {"artifact": {"currentManifest": {"file": file}}}

    def on_CreateArtifact(self, variables: dict) -> dict:
        given = variables.get("input") or variables
        uid = f"artifact{len(self.artifacts)}"
        self.artifacts[uid] = given
        artifact = {"id": uid, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def on_CreateArtifactManifest(self, variables: dict) -> dict:
        given = variables.get("input") or variables
        manifest = self.manifest(given["artifactID"], given.get("includeUpload"))
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def on_UpdateArtifactManifest(self, variables: dict) -> dict:
        manifest = self.manifest(variables["artifactManifestID"], True)
        return {"updateArtifactManifest": {"artifactManifest": manifest}}

    def manifest(self, artifact: str, upload: bool | None) -> dict[str, Any]:
        url = f"{self.url}/put/manifest/{artifact}" if upload else None
        return {"id": artifact, "file": {"id": "m", "uploadUrl": url, "uploadHeaders": []}}

    def on_CreateArtifactFiles(self, variables: dict) -> dict:
        given = variables.get("artifactFiles") or variables["input"]["artifactFiles"]
        nodes = [
            {"node": {
                "storagePath": f"s/{f['name']}", "uploadUrl": f"{self.url}/put/{f['name']}",
                "uploadHeaders": [], "uploadMultipartUrls": None,
                "artifact": {"id": f["artifactID"]}}}
            for f in given
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def on_UseArtifact(self, variables: dict) -> dict:
        given = variables.get("input") or variables
        self.used.append(self.artifacts[given["artifactID"]]["artifactCollectionName"])
        return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}

    def on_CommitArtifact(self, variables: dict) -> dict:
        uid = variables.get("artifactID") or variables["input"]["artifactID"]
        self.committed.append(self.artifacts[uid]["artifactCollectionName"])
        return {"commitArtifact": {"artifact": {"id": uid, "digest": "d"}}}


class Handler(BaseHTTPRequestHandler):
    to: WandbServer
    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def reply(self) -> None:
        try:
            data = self.body()
            server = self.to
            server.release.wait(server.delay)
            if server.mode == "hang":
                server.release.wait()
                self.close_connection = True
                return
            status = {"error": 500, "forbidden": 403}.get(server.mode, 200)
            asked = status == 200 and self.command == "GET"
            answer = server.stored(self.path) if asked else None
            if answer is None:
                known = self.answer(data) if status == 200 else {"error": "no"}
                answer = json.dumps(known).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        except (ConnectionResetError, BrokenPipeError):
            self.close_connection = True

    def answer(self, data: bytes) -> dict[str, Any]:
        server = self.to
        if self.command == "PUT":
            name, _, run = self.path.removeprefix("/put/").partition("?run=")
            server.files[name] = data
            if run:
                server.runs[run].files[name] = data
            server.blobs[hashlib.md5(data).hexdigest()] = data
        elif self.path.endswith("/file_stream"):
            return server.stream(self.path.split("/")[-2], json.loads(data))
        elif self.path.endswith("/graphql"):
            request = json.loads(data)
            name = re.search(r"\b(?:query|mutation)\s+(\w+)", request["query"])
            operation = name.group(1) if name else "?"
            known = server.answer(operation, request.get("variables") or {})
            if operation in server.refused:
                return {"data": None, "errors": [{"message": server.refused[operation]}]}
            return {"data": known}
        return {}

    do_GET = do_POST = do_PUT = do_HEAD = reply

    def log_message(self, *_: Any) -> None:
        pass
