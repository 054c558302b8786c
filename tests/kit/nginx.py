"""A real nginx on loopback, started by a test with the configuration in the documentation, and ended by its process id."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

__all__ = ["needs_nginx", "nginx"]

_PROGRAM: Final = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

needs_nginx = pytest.mark.skipif(
    _PROGRAM is None and "CI" not in os.environ, reason="needs nginx (Debian: apt-get install nginx-light)"
)

_CONFIGURATION: Final = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, server: str, changes: Mapping[str, str]) -> Iterator[int]:
    """Run nginx with a server block in which texts are replaced, and return its port. The folder then has its error log."""
    assert _PROGRAM is not None, "nginx is not installed"
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = int(chosen.getsockname()[1])
    for old, new in {"listen 443 ssl": f"listen 127.0.0.1:{port} ssl", **changes}.items():
        assert old in server, old
        server = server.replace(old, new)
    (folder / "nginx.conf").write_text(_CONFIGURATION.format(folder=folder, server=server))
    log = folder / "error.log"
    with subprocess.Popen([_PROGRAM, "-e", str(log), "-c", str(folder / "nginx.conf")]) as process:
        try:
            end = time.monotonic() + 20
            while not _listens(port):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.01)
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
