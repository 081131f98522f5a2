"""As much of wandb's server as a run needs: it takes in history and files, and knows what it holds when one resumes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ServedRun:
    """What was sent of one run."""

    config: dict[str, Any] = field(default_factory=dict)
    group: str | None = None
    name: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    begun: int = 0


class Server(ThreadingHTTPServer):
    """Keeps the runs, by id, and the names of all operations that it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, ServedRun] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer; nothing for what runs do not depend on."""
        self.asked.append(operation)
        method = getattr(self, f"on_{operation}", None)
        return method(variables) if method else {}

    def on_RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        run, place = self.runs.get(variables["name"]), {"name": "p", "entity": {"name": "us"}}
        if run is None:
            return {"model": place | {"bucket": None}}
        tail = json.dumps([json.dumps(row) for row in run.history[-1:]])
        held = {"historyLineCount": len(run.history), "eventsLineCount": 0, "logLineCount": 0}
        told = {"summaryMetrics": json.dumps(run.summary), "config": json.dumps(run.config), "historyTail": tail}
        rest = {"name": variables["name"], "displayName": run.name, "eventsTail": "[]", "tags": [], "notes": None}
        return {"model": place | {"bucket": held | told | rest | {"wandbConfig": '{"t": 1}'}}}

    def on_UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.setdefault(variables["name"], ServedRun())
        run.begun += 1
        run.config |= json.loads(variables.get("config") or "{}")
        run.group, run.name = variables.get("groupName") or run.group, variables.get("displayName") or run.name
        place = {"id": "1", "name": variables.get("project"), "entity": {"id": "1", "name": "us"}}
        bucket = {"id": "1", "name": variables["name"], "displayName": run.name, "project": place, "config": "{}"}
        return {"upsertBucket": {"bucket": bucket | {"historyLineCount": len(run.history)}, "inserted": True}}

    def on_CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = variables["files"]
        self.runs[variables["run"]].files += files
        sent = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in files]
        return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": sent}}

    def take_stream(self, run_id: str, content: dict[str, Any]) -> None:
        run, files = self.runs[run_id], content.get("files") or {}
        history = files.get("wandb-history.jsonl")
        if history:
            assert history["offset"] == len(run.history), "a hole in the history, or a part of it twice"
            run.history += map(json.loads, history["content"])
        for line in (files.get("wandb-summary.json") or {}).get("content", []):
            run.summary = json.loads(line)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stream = re.fullmatch(r"/files/[^/]*/[^/]*/([^/]*)/file_stream", self.path)
        if stream:
            self.server.take_stream(stream.group(1), content)
            self._reply({})
            return
        operation = re.search(r"(?:query|mutation)\s+(\w+)", content["query"])
        name = operation.group(1) if operation else "?"
        self._reply({"data": self.server.answer(name, content.get("variables") or {})})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._reply({})

    def do_GET(self) -> None:
        self._reply({})

    def log_message(self, format: str, *args: Any) -> None: ...

    def _reply(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def wandb_server() -> Iterator[Server]:
    """The server, at work."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
