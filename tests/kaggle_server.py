"""A server on this machine that speaks as much of Kaggle's protocol as the official client 2.2.4 uses to submit."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "canary-0f3b9d7c5e1a4826b0d1"
SIGNED = "signature-51c2e8"


@dataclass
class KaggleServer:
    """What the service knows, and how it misbehaves."""

    allowed: int = 5
    total: int = 1
    pending: int = 0
    """So many lists still say `pending` of a new submission."""
    public: str = "0.97320"
    private: str = ""
    error: str = ""
    """Why submissions are not scored."""
    fails: dict[str, int | str] = field(default_factory=dict)
    """Method or PUT -> a status, or `before`, `after`, `silent`, `html`: the connection drops before the service did
    what it was asked, after it, no answer comes after it, or it is somebody else who answers."""
    submissions: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    uploaded: bytes = b""
    watch: Callable[[str], object] = str
    """Called with each method before anything is done."""
    page: int = 20
    port: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def did(self, method: str) -> int:
        """How often a method was called."""
        return self.calls.count(method)

    def add(self, description: str, **changes: Any) -> None:
        """Have a submission in the list."""
        ref = 1000 + len(self.submissions)
        self.submissions.append({"ref": ref, "description": description, "asked": 0, **changes})

    def answer(self, method: str, asked: dict[str, Any]) -> dict[str, Any]:
        """What the service does and answers."""
        if method == "IntrospectToken":
            return {"active": asked["token"] == TOKEN, "username": "someone"}
        if method == "GetSubmissionLimits":
            return {"numToday": 1, "numTotal": self.total, "numAllowedNow": self.allowed}
        if method == "StartSubmissionUpload":
            return {"token": "blob", "createUrl": f"http://127.0.0.1:{self.port}/upload?{SIGNED}"}
        if method == "CreateSubmission":
            self.add(asked["submissionDescription"])
            return {"message": "Successfully submitted", "ref": self.submissions[-1]["ref"]}
        assert method == "ListSubmissions", method
        newest = self.submissions[::-1][(asked["page"] - 1) * self.page : asked["page"] * self.page]
        return {"submissions": [self._listed(each) for each in newest], "nextPageToken": ""}

    def _listed(self, each: dict[str, Any]) -> dict[str, Any]:
        each["asked"] += 1
        about = {"ref": each["ref"], "description": each["description"], "date": "2026-01-01T00:00:00.1234567Z"}
        if each["asked"] <= self.pending:
            return {**about, "status": "PENDING", "publicScore": "", "privateScore": ""}
        if self.error:
            return {**about, "status": "ERROR", "errorDescription": self.error}
        return {**about, "status": "COMPLETE", "publicScore": self.public, "privateScore": self.private}


class _Handler(BaseHTTPRequestHandler):
    told: KaggleServer

    def do_POST(self) -> None:
        self._serve(self.path.rpartition("/")[2])

    def do_PUT(self) -> None:
        self._serve("PUT")

    def _serve(self, method: str) -> None:
        told = self.told
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        told.calls.append(method)
        told.headers.append(self.headers.get("Authorization", ""))
        told.watch(method)
        fails = told.fails.get(method)
        if fails == "before":
            self.close_connection = True
            return
        if isinstance(fails, int):
            said = {"code": fails, "message": f"no {method} for {self.headers.get('Authorization')}"}
            self._answer(fails, said)
            return
        if fails == "html":
            self._answer(200, "<html>sign in to this network</html>")
            return
        if method == "PUT":
            told.uploaded = body
            self._answer(200, {})
            return
        answer = told.answer(method, json.loads(body))
        if fails == "silent":
            told.ended.wait(30)
        if fails in ("after", "silent"):
            self.close_connection = True
            return
        self._answer(200, answer)

    def _answer(self, status: int, answer: dict[str, Any] | str) -> None:
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Kaggle-APIVersion", "99.0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def kaggle_server() -> Iterator[KaggleServer]:
    """Serve until the block is left."""
    told = KaggleServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"told": told}))
    server.daemon_threads = True
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        told.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
