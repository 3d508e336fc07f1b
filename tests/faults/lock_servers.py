"""Real database servers for tests: children of this process, in a temporary folder, on a free loopback port.

They are started by their own programs, not by `pg_ctl` or a service, so that `kill -9` leaves no zombie behind which a
restart would take for a living server, and they never run as root, which both refuse.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path

import psutil

PASSWORD = "correct horse"
STARTS_WITHIN_S = 60.0


class Missing(Exception):
    """The server's program is not installed."""


class Server(ABC):
    """One server of our own.

    Law: after `stop` neither process nor file is left.

    Parameters
    ----------
    on_disk : bool
        Whether its files must lie on a disk, so that a commit costs what it costs.
    """

    name: str
    account: str
    packages: str

    def __init__(self, *, on_disk: bool = False) -> None:
        self.program = self.find(self.names())
        where = None if on_disk else fast_folder()
        self.folder = Path(tempfile.mkdtemp(prefix=f"agentflow-{self.name}-", dir=where))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        if os.geteuid() == 0:
            self.user: str | None = self.unprivileged()
            shutil.chown(self.folder, self.user)
        else:
            self.user = None
        try:
            self.initialise()
            self.start()
            self.set_up()
        except BaseException:
            self.stop()
            raise

    # --- life ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                start_new_session=True,  # an interrupt of the tests must not stop it before they do
                **self.as_user(),
            )
        self.starts += 1
        ends = time.monotonic() + STARTS_WITHIN_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it as a power failure would, and wait until it is gone."""
        assert self.process is not None
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def freeze(self) -> None:
        """Let it keep its connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        # PostgreSQL's backends are sessions of their own, so the process group would miss them.
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        for process in (server, *server.children(recursive=True)):
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def restart(self) -> None:
        """Kill it and start it on the same port and files."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """End it and remove its files."""
        if self.process is not None:
            self.thaw()
            self.process.send_signal(self.quick_end)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- what differs --------------------------------------------------------------------------------

    quick_end = signal.SIGTERM

    @abstractmethod
    def names(self) -> tuple[str, ...]: ...

    @abstractmethod
    def initialise(self) -> None: ...

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def answers(self) -> bool: ...

    @abstractmethod
    def set_up(self) -> None: ...

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def find(self, names: tuple[str, ...]) -> str:
        for name in names:
            if found := shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"):
                return found
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
        for folder in reversed(versions):
            if (folder / names[0]).exists():
                return str(folder / names[0])
        raise Missing(f"{names[0]} is not installed (apt-get install {self.packages})")

    def unprivileged(self) -> str:
        for account in (self.account, "nobody"):
            try:
                return pwd.getpwnam(account).pw_name
            except KeyError:
                continue
        raise Missing(f"root may not run {self.name}, and there is no account to run it as")

    def as_user(self) -> dict[str, object]:
        if self.user is None:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "umask": 0o077}

    def run(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, **self.as_user()
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")


class PostgresServer(Server):
    name, account, packages = "postgresql", "postgres", "postgresql"
    quick_end = signal.SIGQUIT  # immediate: no clients are waited for and no checkpoint is made

    def names(self) -> tuple[str, ...]:
        return ("postgres",)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/postgres"

    def initialise(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        initdb = str(Path(self.program).with_name("initdb"))
        self.run(
            *(initdb, "--pgdata", str(self.folder / "data"), "--username", "postgres"),
            *("--auth", "scram-sha-256", "--pwfile", str(secret), "--encoding", "UTF8", "--locale", "C"),
        )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "16MB",
            "autovacuum": "off",
        }
        return [
            *(self.program, "-D", str(self.folder / "data")),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ]

    def answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(
                host="127.0.0.1", port=self.port, user="postgres", password=PASSWORD, connect_timeout=2
            ):
                return True
        except psycopg.OperationalError:
            return False

    def set_up(self) -> None:
        """Nothing: initdb made the account and the database."""


class MariaServer(Server):
    name, account, packages = "mariadb", "mysql", "mariadb-server"
    quick_end = signal.SIGKILL  # an orderly end takes seconds, and its files are thrown away

    def names(self) -> tuple[str, ...]:
        return ("mariadbd", "mysqld")

    @property
    def url(self) -> str:
        secret = PASSWORD.replace(" ", "%20")
        return f"mysql+pymysql://agentflow:{secret}@127.0.0.1:{self.port}/agentflow"

    def initialise(self) -> None:
        self.run(
            *("mariadb-install-db", "--no-defaults", f"--datadir={self.folder / 'data'}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        )

    def command(self) -> list[str]:
        return [
            *(self.program, "--no-defaults", f"--datadir={self.folder / 'data'}", f"--port={self.port}"),
            *("--bind-address=127.0.0.1", f"--socket={self.folder / 'my.sock'}", "--skip-name-resolve"),
            *(
                f"--pid-file={self.folder / 'my.pid'}",
                "--innodb-buffer-pool-size=32M",
                "--max-connections=200",
            ),
            "--innodb-log-file-size=8M",
        ]

    def answers(self) -> bool:
        import pymysql

        try:
            pymysql.connect(host="127.0.0.1", port=self.port, user="root", connect_timeout=2).close()
        except pymysql.err.OperationalError:
            return False
        return True

    def set_up(self) -> None:
        import pymysql

        conn = pymysql.connect(host="127.0.0.1", port=self.port, user="root")
        with conn, conn.cursor() as cursor:
            cursor.execute("CREATE DATABASE agentflow")
            cursor.execute("CREATE USER agentflow@'127.0.0.1' IDENTIFIED BY %s", (PASSWORD,))
            cursor.execute("GRANT ALL ON *.* TO agentflow@'127.0.0.1'")
            cursor.execute("FLUSH PRIVILEGES")


def fast_folder() -> str | None:
    """A file system in memory, if there is one with room: it outlives a `kill -9` as a disk does, and waits for none.

    None means the usual temporary folder.
    """
    shared = "/dev/shm"
    if os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 2**30:
        return shared
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
