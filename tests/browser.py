"""JupyterLab in a headless Chromium, driven as a person would: for tests and for screenshots.

Needs jupyterlab and playwright (`pip install -e ".[browser]"`) and a Chromium of the system.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PLACES = ("chromium", "chromium-browser", "google-chrome", "/usr/lib/chromium/chromium")
PATIENCE = 60  # seconds: a training imports torch first, and machines are busy
SETTINGS = {  # every cell is on the page at once; nothing asks the network
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
CELLS = "jupyterapp.shell.currentWidget.content.widgets"


def what_is_missing() -> str:
    """Return why no browser can be driven here, or nothing."""
    missing = [name for name in ("jupyterlab", "playwright") if not importlib.util.find_spec(name)]
    if not find_chromium():
        missing.append("chromium")
    return f"not installed: {', '.join(missing)}" if missing else ""


def find_chromium() -> str:
    """Return the path of a Chromium, or nothing."""
    return next(filter(None, map(shutil.which, PLACES)), "")


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Return what `true` says once that is something; AssertionError after `patience` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {patience:g} s in vain: {what}")


@contextlib.contextmanager
def lab(folder: Path, *, width: int = 1200, height: int = 1400) -> Iterator[Lab]:
    """Run JupyterLab on a copy of the notebooks in `folder`, and a browser; end all that began."""
    from playwright.sync_api import sync_playwright

    shutil.copytree(NOTEBOOKS, folder, dirs_exist_ok=True)
    own = folder.parent / "jupyter"
    server, address = _serve(folder, own)
    try:
        with sync_playwright() as player:
            options = {"executable_path": find_chromium(), "args": ["--no-sandbox"]}
            browser = player.chromium.launch(**options)
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(1000 * PATIENCE)
            yield Lab(folder, address, page)
            browser.close()
    finally:
        _end(server, folder)


class Lab:
    """One page that shows one notebook at a time."""

    def __init__(self, folder: Path, address: str, page: Any) -> None:
        self.folder, self.page, self._address = folder, page, address
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, name: str) -> None:
        """Open a notebook and wait for its kernel."""
        self.page.goto(self._address.replace("/lab?", f"/lab/tree/{name}.ipynb?reset&"))
        self._wait_for_kernel()

    def reload(self) -> None:
        """Reload the page, as a person does; what was not saved is lost."""
        self.page.reload()
        self._wait_for_kernel()

    def _wait_for_kernel(self) -> None:
        kernel = "jupyterapp.shell.currentWidget.context.sessionContext.session?.kernel"
        ready = f"window.jupyterapp?.shell?.currentWidget?.context && {kernel}?.status == 'idle'"
        self.page.wait_for_function(ready)
        if self.page.locator("#jp-left-stack").is_visible():
            self.command("application:toggle-left-area")

    def command(self, name: str) -> None:
        """Execute a command of JupyterLab's menus."""
        self.page.evaluate("name => { jupyterapp.commands.execute(name) }", name)

    def run_all(self) -> None:
        """Start all cells; `wait_for_cells` waits for them."""
        self.command("notebook:run-all-cells")

    def wait_for_cells(self, patience: float = PATIENCE) -> None:
        """Wait until every code cell ran; AssertionError with the first error among them."""
        left = f"{CELLS}.filter(c => c.model.type == 'code')"
        left += ".filter(c => c.model.executionCount == null || c.model.executionState != 'idle')"
        until(lambda: self.page.evaluate(f"{left}.length == 0") or self.error(), "cells", patience)
        assert not self.error(), self.error()

    def error(self) -> str:
        """Return the first error that a cell shows, or nothing."""
        outputs = f"{CELLS}.flatMap(c => c.model.type == 'code' ? c.model.outputs.toJSON() : [])"
        errors = f"{outputs}.filter(o => o.output_type == 'error').map(o => o.ename + o.evalue)"
        return str(self.page.evaluate(f"{errors}[0] || ''"))

    def save(self) -> None:
        """Save the notebook and wait until it is."""
        self.page.evaluate("() => jupyterapp.commands.execute('docmanager:save').then(() => 1)")

    def cell(self, source: str) -> Any:
        """Return the code cell whose source holds this text, as a locator."""
        return self.page.locator(".jp-CodeCell", has=self.page.get_by_text(source)).first

    def run_to(self, source: str) -> None:
        """Start the cell that holds this text and all above it."""
        self._go_to(source, 1)
        self.command("notebook:run-all-above")

    def run_below(self, source: str) -> None:
        """Start all cells below the one that holds this text."""
        self._go_to(source, 1)
        self.command("notebook:run-all-below")

    def _go_to(self, source: str, further: int = 0) -> None:
        index = f"{CELLS}.findIndex(c => c.model.sharedModel.source.includes(text)) + {further}"
        go = f"text => {{ jupyterapp.shell.currentWidget.content.activeCellIndex = {index} }}"
        self.page.evaluate(go, source)

    def replace(self, old: str, new: str) -> None:
        """Type over a piece of a cell's source."""
        change = f"""([old, now]) => {{
            const model = {CELLS}.find(c => c.model.sharedModel.source.includes(old)).model
            model.sharedModel.setSource(model.sharedModel.source.replace(old, now))
        }}"""
        self.page.evaluate(change, [old, new])

    def picture(self, first: str = "", last: str = "") -> bytes:
        """Return a screenshot, as PNG, of all cells from one to another, or of the notebook."""
        before = self.page.viewport_size
        outer = "document.querySelector('.jp-WindowedPanel-outer')"
        tall = self.page.evaluate(f"{outer}.scrollHeight") + 200
        self.page.set_viewport_size({"width": before["width"], "height": tall})
        self.page.wait_for_function(f"{outer}.scrollHeight <= {outer}.clientHeight")
        cells = self.page.locator(".jp-Notebook .jp-Cell")
        top = (self.cell(first) if first else cells.first).bounding_box()
        end = (self.cell(last) if last else cells.last).bounding_box()
        height = end["y"] + end["height"] - top["y"]
        clip = {"x": top["x"], "y": top["y"], "width": top["width"], "height": height}
        picture = self.page.screenshot(clip=clip)
        self.page.set_viewport_size(before)
        return bytes(picture)

    def press(self, name: str, source: str) -> None:
        """Click the button of this name in a cell's output once it can be clicked."""
        self.cell(source).get_by_role("button", name=name).click()


def _serve(folder: Path, own: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server whose settings and records lie in `own`; return it and its address."""
    for name, values in SETTINGS.items():
        path = own / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = os.urandom(16).hex()
    names = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    places = {f"JUPYTER_{name}": str(own / name.lower()) for name in names}
    places |= {"IPYTHONDIR": str(own / "ipython"), "JUPYTER_PLATFORM_DIRS": "1"}
    places |= {"JUPYTERLAB_SETTINGS_DIR": str(own / "settings")}
    places |= {"JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.expose_app_in_browser=True", "--ServerApp.port_retries=0"]
    with (own / "server.txt").open("wb") as log:
        environment = {**os.environ, **places, "OMP_NUM_THREADS": "1"}
        environment.pop("CAMOXPERT_BATCH", None)
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    address = f"http://127.0.0.1:{port}/lab?token={token}"
    until(lambda: server.poll() is not None or _answers(address), "JupyterLab")
    assert server.poll() is None, (own / "server.txt").read_text()
    return server, address


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(address.replace("/lab?", "/api/status?"), timeout=5))
    return False


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    """End the server, which ends its kernels, and the trainings in `folder`, which outlive it."""
    server.terminate()  # kernels are ended first
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
    for path in folder.glob("runs/*/process.json"):
        pid = json.loads(path.read_text()).get("pid", 0)
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if b"camoxpert_nb" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.killpg(pid, signal.SIGKILL)  # it leads its own session
