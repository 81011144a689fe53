"""The official client uploads what was built, to a server on this machine that checks it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.kaggle.bundle import build
from camoxpert_nb.kaggle.rules import slug_of

BESIDE = Path(sys.executable).with_name("kaggle")
CLIENT = os.environ.get("KAGGLE_CLIENT") or shutil.which("kaggle") or shutil.which(BESIDE)
# The client's environment for tests talks to port 80 of this machine, which is not everybody's.
OTHER_PORT = """
import kagglesdk.kaggle_env as env
env._env_to_endpoint[env.KaggleEnv.LOCAL] = "http://localhost:{port}"
"""
pytestmark = pytest.mark.skipif(not CLIENT, reason="the kaggle client is not installed")


class Kaggle(ThreadingHTTPServer):
    """What the real one does with notebooks and data sets, as far as an upload goes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kernels: dict[str, dict[str, Any]] = {}
        self.datasets: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.names: dict[str, str] = {}

    def save_kernel(self, request: dict[str, Any]) -> dict[str, Any]:
        assert request["slug"].rpartition("/")[2] == slug_of(request["newTitle"])
        assert not any(cell.get("outputs") for cell in json.loads(request["text"])["cells"])
        self.kernels[request["slug"]] = request
        known = [f"some-one/{name}" for name in self.datasets]
        unknown = [name for name in request["datasetDataSources"] if name not in known]
        return {"ref": request["slug"], "versionNumber": 1, "invalidDatasetSources": unknown}

    def start_blob_upload(self, request: dict[str, Any]) -> dict[str, Any]:
        token = f"token-{len(self.names)}"
        self.names[token] = request["name"]
        return {"token": token, "createUrl": f"http://localhost:{self.server_port}/put/{token}"}

    def create_dataset(self, request: dict[str, Any]) -> dict[str, Any]:
        self.datasets[request["slug"]] = request
        return {"ref": request["slug"], "status": "ok", "url": "http://localhost/", "error": ""}


class Handler(BaseHTTPRequestHandler):
    server: Kaggle

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        calls = {
            "SaveKernel": self.server.save_kernel,
            "StartBlobUpload": self.server.start_blob_upload,
            "CreateDataset": self.server.create_dataset,
        }
        call = calls.get(self.path.rpartition("/")[2])
        self.answer(200, call(body)) if call else self.answer(404, {"code": 404, "message": "no"})

    def do_PUT(self) -> None:
        if length := self.headers["Content-Length"]:
            data = self.rfile.read(int(length))
        else:  # sent in chunks
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
        self.server.blobs[self.path.rpartition("/")[2]] = data
        self.answer(200, {})

    def answer(self, code: int, values: dict[str, Any]) -> None:
        data = json.dumps(values).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("build")
    build("some-one", output, data=["an-owner/cod10k-dataset"])
    return output


@pytest.fixture(scope="module")
def kaggle() -> Iterator[Kaggle]:
    server = Kaggle()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def client(server: Kaggle, home: Path, *words: str) -> str:
    (home / "sitecustomize.py").write_text(OTHER_PORT.format(port=server.server_port))
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(home),
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "KAGGLE_USERNAME": "some-one",
        "KAGGLE_KEY": "none",
    }
    done = subprocess.run(
        [str(CLIENT), *words], env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_kit_becomes_a_data_set(built: Path, kaggle: Kaggle, tmp_path: Path) -> None:
    client(kaggle, tmp_path, "datasets", "create", "-p", str(built / "kit"), "--dir-mode", "zip")
    sent = kaggle.datasets["camoxpert-kit"]
    assert (sent["ownerSlug"], sent["licenseName"]) == ("some-one", "other")
    assert sent["isPrivate"] is True
    arrived = {kaggle.names[file["token"]]: kaggle.blobs[file["token"]] for file in sent["files"]}
    (wheel,) = (built / "kit").glob("*.whl")
    assert set(arrived) == {"LICENSE", "camoxpert_nb.zip", wheel.name}
    assert arrived[wheel.name] == wheel.read_bytes()


@pytest.mark.parametrize("stem", ["03_train", "camoxpert_train"])
def test_a_notebook_arrives_with_two_t4_and_without_internet(
    built: Path, kaggle: Kaggle, tmp_path: Path, stem: str
) -> None:
    said = client(kaggle, tmp_path, "kernels", "push", "-p", str(built / stem))
    assert "successfully pushed" in said
    assert "surprising behavior" not in said  # what the client says of titles that do not fit
    metadata = json.loads((built / stem / "kernel-metadata.json").read_text())
    sent = kaggle.kernels[metadata["id"]]
    assert (sent["machineShape"], sent["enableGpu"]) == ("NvidiaTeslaT4", True)
    assert sent["enableInternet"] is False and sent["isPrivate"] is True
    assert sent["datasetDataSources"] == metadata["dataset_sources"]
    assert sent.get("kernelDataSources", []) == metadata["kernel_sources"]
    assert sent["newTitle"] == metadata["title"]
    cells = json.loads(sent["text"])["cells"]
    assert cells == json.loads((built / stem / f"{stem}.ipynb").read_text())["cells"]
