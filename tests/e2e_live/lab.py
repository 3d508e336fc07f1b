"""A real JupyterLab and a real browser, to be driven by tests and benchmarks."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
from playwright.sync_api import sync_playwright

SOON_MS = 30_000
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}


def chromium():
    """Where Debian puts it."""
    found = shutil.which("chromium", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/bin"]))
    if found is None:
        raise FileNotFoundError("chromium is not installed; apt-get install chromium")
    return found


class Lab:
    """A JupyterLab server in a folder of its own."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.root = self.folder / "notebooks"
        self.root.mkdir(parents=True)
        settings = self.folder / "settings"
        place = settings / "@jupyterlab/apputils-extension"
        place.mkdir(parents=True)
        (place / "notification.jupyterlab-settings").write_text(json.dumps(NO_NEWS))
        self.themes = place / "themes.jupyterlab-settings"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        own = {
            f"JUPYTER{name}_DIR": str(self.folder / name.strip("_").lower())
            for name in ("_CONFIG", "_DATA", "_RUNTIME", "LAB_WORKSPACES")
        }
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": self.port,
            "ServerApp.port_retries": 0,
            "IdentityProvider.token": "",
            "ServerApp.password": "",
            "ServerApp.disable_check_xsrf": True,
            "ServerApp.root_dir": self.root,
            "LabApp.expose_app_in_browser": True,
            "LabApp.extension_manager": "readonly",
        }
        said = [f"--{name}={value}" for name, value in options.items()]
        package = Path(__file__).resolve().parents[2]
        self.log = (self.folder / "server.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *said],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                **own,
                "JUPYTERLAB_SETTINGS_DIR": str(settings),
                "IPYTHONDIR": str(self.folder / "ipython"),
                "PYTHONPATH": os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")]),
                "PYTHONWARNINGS": "ignore",
            },
        )
        self.url = f"http://127.0.0.1:{self.port}"
        limit = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/api/status", timeout=2).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > limit:
                    self.close()
                    raise
                time.sleep(0.1)

    def theme(self, dark):
        """Choose the theme of pages opened from now on."""
        name = "JupyterLab Dark" if dark else "JupyterLab Light"
        self.themes.write_text(json.dumps({"theme": name}))

    def close(self):
        """End the server and its kernels."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Sheet:
    """A notebook open in a page of the browser."""

    def __init__(self, lab, page, cells, name, width=1280):
        self.lab, self.page, self.name = lab, page, name
        self.path = lab.root / name
        self.problems, self.strangers = [], []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        page.on("request", self._request)
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(each) for each in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        nbformat.write(notebook, self.path)
        self.open()

    def _console(self, message):
        # The debugger is JupyterLab's own, and complains of kernels that end.
        if message.type == "error" and not any(word in message.text for word in ("favicon", "debugger")):
            self.problems.append(f"{message.text} {message.location.get('url', '')}")

    def _request(self, request):
        if not request.url.startswith((self.lab.url, "data:", "blob:", self.lab.url.replace("http", "ws"))):
            self.strangers.append(request.url)

    def open(self):
        """Open the notebook and wait for its kernel."""
        self.page.goto(f"{self.lab.url}/doc/tree/{self.name}?reset")
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=60_000,
        )

    def command(self, name, args=None):
        """Run a command of JupyterLab and wait for it."""
        return self.page.evaluate(
            "([name, args]) => window.jupyterapp.commands.execute(name, args || {}).then(() => true, () => false)",
            [name, args],
        )

    def run(self):
        """Run all cells and wait until they are done."""
        return self.command("notebook:run-all-cells")

    def begin(self):
        """Run all cells and do not wait."""
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def save(self):
        """Save it; give the notebook as saved."""
        self.command("docmanager:save")
        return nbformat.read(self.path, as_version=4)

    def at(self, testid):
        """The first element of a test id."""
        return self.page.locator(f"[data-testid='{testid}']").first

    def execute(self, code):
        """Run code in the kernel past the notebook, while no cell runs; give what it printed."""
        return self.page.evaluate(
            """async (code) => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const future = kernel.requestExecute({code, store_history: false, silent: false});
                let said = '';
                future.onIOPub = (m) => {
                    if (m.header.msg_type === 'stream') said += m.content.text;
                    if (m.header.msg_type === 'error') said += m.content.ename + ': ' + m.content.evalue;
                };
                await future.done;
                return said;
            }""",
            code,
        )

    def close(self):
        """Close the page and end the kernel."""
        with contextlib.suppress(Exception):
            self.page.evaluate(
                "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(() => true)"
            )
        self.page.close()


@contextlib.contextmanager
def browser():
    """Debian's Chromium, headless."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=FLAGS, headless=True)
        try:
            yield found
        finally:
            found.close()
