"""A real nats-server as a child of whoever tests or measures against it, on a free loopback port."""

import json
import subprocess
import tempfile
import time
from pathlib import Path

PATIENCE = 20.0
"""Seconds it may take to start."""


class NatsServer:
    """A nats-server that lives as long as the `with`.

    Parameters
    ----------
    program : str
        The server's path.
    """

    def __init__(self, program):
        self.program = program

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        # Port -1 is any free one; which it is, the server writes into a file.
        command = [self.program, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(folder)]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log)
        limit = time.monotonic() + PATIENCE
        while not (found := list(folder.glob("*.ports"))) or not found[0].stat().st_size:
            if self._process.poll() is not None or time.monotonic() > limit:
                self.__exit__()
                raise RuntimeError(f"{self.program} did not start: {(folder / 'log').read_text()}")
            time.sleep(0.01)
        (self.url,) = json.loads(found[0].read_text())["nats"]
        self.port = int(self.url.rpartition(":")[2])
        return self

    def __exit__(self, *error):
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()
