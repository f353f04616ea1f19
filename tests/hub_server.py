"""A Hugging Face Hub of this machine: as much of its HTTP interface as huggingface_hub asks for."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The repositories of a server.

    Attributes:
      files: {USER/REPO: {revision: {path: bytes}}}.
      status: an HTTP status with which every request is answered; None answers as a hub does.
      truncated: bytes that are sent of a file, whatever its size.
      asked: 'METHOD path' of all requests.
    """

    def __init__(self):
        self.files, self.status, self.truncated, self.asked = {}, None, None, []
        self.endpoint = ""

    def repo(self, name: str) -> dict[str, bytes]:
        return self.files[name]["main"]


@contextlib.contextmanager
def running():
    """A `Hub` that answers at its `endpoint`."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield hub
        server.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_):
        pass

    def answer(self, content, status=200, headers=None, send=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:send])
        self.close_connection = True

    def missing(self, code, status=404):
        self.answer({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})

    def do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/")
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.status is not None:
            return self.answer({"error": "no"}, self.hub.status)
        parts = path.split("/")
        if self.command == "POST":
            return self.post(parts, body)
        api = parts[:2] == ["api", "models"]
        repo, *rest = ["/".join(parts[2:4] if api else parts[:2]), *parts[4 if api else 2 :]]
        if repo not in self.hub.files:
            return self.missing("RepoNotFound")
        revisions = self.hub.files[repo]
        names = {name: hashlib.sha1(name.encode()).hexdigest() for name in revisions}
        asked = rest[1] if len(rest) > 1 else "main"
        found = next((n for n in names if asked in (n, names[n])), None)
        if found is None:
            return self.missing("RevisionNotFound")
        files, commit = revisions[found], names[found]
        if api and rest[:1] == ["tree"]:
            return self.answer([_entry(name, data) for name, data in files.items()])
        if api:
            siblings = [{"rfilename": name} for name in files]
            return self.answer({"_id": "1", "id": repo, "sha": commit, "siblings": siblings})
        name = "/".join(rest[2:])
        if name not in files:
            return self.missing("EntryNotFound")
        etag = f'"{_entry(name, files[name])["oid"]}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit}
        return self.answer(files[name], 200, headers, self.hub.truncated)

    def post(self, parts, body):
        path = "/".join(parts)
        if path == "api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}"
            self.hub.files.setdefault(name, {"main": {}})
            return self.answer({"url": f"{self.hub.endpoint}/{name}"})
        repo, kind = "/".join(parts[2:4]), parts[4] if len(parts) > 4 else ""
        if kind == "branch":
            self.hub.files[repo].setdefault(parts[5], {})
            return self.answer({})
        if kind == "preupload":
            files = [f["path"] for f in json.loads(body)["files"]]
            regular = [
                {"path": f, "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in files
            ]
            return self.answer({"files": regular})
        if kind == "commit":
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    data = base64.b64decode(value["content"])
                    self.hub.files[repo][parts[5]][value["path"]] = data
            url = f"{self.hub.endpoint}/{repo}/commit/{COMMIT}"
            return self.answer({"commitUrl": url, "commitOid": COMMIT, "success": True})
        return self.answer({"errors": [], "warnings": []})  # api/validate-yaml, of a README

    do_GET = do_HEAD = do_POST = do


def _entry(name: str, data: bytes) -> dict:
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return {"type": "file", "path": name, "size": len(data), "oid": oid}
