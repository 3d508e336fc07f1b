"""Start a JupyterLab command, see that it serves a notebook, end it.

python tests/e2e/serves.py 00_quickstart.ipynb agentflow lab course
python tests/e2e/serves.py notebooks/00_quickstart.ipynb jupyter lab
"""

import json
import socket
import subprocess
import sys
import time
import urllib.request


def main():
    notebook, *command = sys.argv[1:]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    server = subprocess.Popen(
        [*command, *options, "--IdentityProvider.token="],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        found = ask(f"http://127.0.0.1:{port}/api/contents/{notebook}", server)
    finally:
        server.terminate()
        server.wait(30)
    cells = len(found["content"]["cells"])
    print(f"{' '.join(command[:2]).rpartition('/')[2]} serves {notebook}: {cells} cells")


def ask(url, server, patience=90):
    """What the server answers, once it is up."""
    limit = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            if server.poll() is not None or time.monotonic() > limit:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main()
