"""`voxnest` in forks of a process that has imported torch and its kin: dozens of commands need it once.

python tests/warm_commands.py SOCKET                 # the process that forks
python tests/warm_commands.py SOCKET ARGUMENTS...    # `voxnest ARGUMENTS...`, with the streams and folder of this one
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

LIBRARIES = (
    "voxnest.training.run",
    "voxnest.evaluation",
    "voxnest.inference",
    "voxnest.zoo.picture",
    "matplotlib.figure",
)
MOST = 1 << 20  # bytes of a request


@contextmanager
def warm_commands(folder: Path, sources: Path) -> Iterator[list[str]]:
    """Start the process that forks; give the words to put before the arguments of a command."""
    address = folder / "commands"
    words = [sys.executable, "-S", __file__, str(address)]
    environment = {**os.environ, "PYTHONPATH": str(sources)}
    with subprocess.Popen([sys.executable, __file__, str(address)], env=environment) as process:
        try:
            while not address.exists():
                assert process.poll() is None, "the process that runs commands has ended"
                time.sleep(0.02)
            yield words
        finally:
            process.terminate()


def serve(address: str) -> NoReturn:
    """Run what is asked for at a socket, each request in processes of its own."""
    for name in LIBRARIES:
        __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{address}.new")
        listener.listen()
        os.rename(f"{address}.new", address)
        while True:
            connection = listener.accept()[0]
            if os.fork() == 0:
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(connection, MOST, 3)
    child = os.fork()
    if child == 0:
        _be(json.loads(message), streams)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(status).encode())
    os._exit(0)


def _be(request: dict, streams: list[int]) -> NoReturn:
    """Be the command."""
    from voxnest.cli.main import main

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["voxnest", *request["arguments"]]
    status = 1
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ask(address: str, arguments: list[str]) -> int:
    """Have a command run, and give its exit status."""
    request = {"folder": os.getcwd(), "environment": dict(os.environ), "arguments": arguments}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
        return int(connection.recv(16))


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2:]) if sys.argv[2:] else serve(sys.argv[1]))
