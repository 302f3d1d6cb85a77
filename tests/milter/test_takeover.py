"""Taking a listener over, while other threads of the program open and close sockets of their own."""

from __future__ import annotations

import os
import resource
import socket

from mailward.milter.takeover import Takeover
from tests.support.processes import open_folder


def test_a_socket_closed_meanwhile_whose_number_libmilter_gets_is_no_confusion() -> None:
    with (
        open_folder() as folder,
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(type=socket.SOCK_DGRAM) as query,
    ):
        listener.bind(str(folder / "real.sock"))
        listener.listen()
        wanted = os.fstat(listener.fileno()).st_ino
        number = query.fileno()

        def open_at(address: str) -> None:
            with socket.socket(socket.AF_UNIX) as own:
                own.bind(address.removeprefix("unix:"))
                own.listen()
                os.dup2(own.fileno(), number)  # closes the query's socket, and listens under its number

        takeover = Takeover(listener, open_at)
        assert os.fstat(number).st_ino == wanted
        takeover.stop_accepting()
        assert os.fstat(number).st_ino != wanted
        takeover._dummy.close()  # a worker keeps it for as long as it lives


def test_a_socket_opened_meanwhile_is_not_taken_for_libmilters() -> None:
    with open_folder() as folder, socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as own:
        listener.bind(str(folder / "real.sock"))
        listener.listen()
        wanted = os.fstat(listener.fileno()).st_ino
        queries = []

        def open_at(address: str) -> None:
            queries.append(socket.socket(type=socket.SOCK_DGRAM))
            own.bind(address.removeprefix("unix:"))
            own.listen()

        takeover = Takeover(listener, open_at)
        assert os.fstat(own.fileno()).st_ino == wanted
        takeover._dummy.close()
        queries[0].close()


def test_a_connection_is_seen_where_no_descriptor_is_left_to_look_with() -> None:
    with open_folder() as folder, socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as own:
        path = str(folder / "real.sock")
        listener.bind(path)
        listener.listen()

        def open_at(address: str) -> None:
            own.bind(address.removeprefix("unix:"))
            own.listen()

        takeover = Takeover(listener, open_at)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            with own.accept()[0]:
                takeover.stop_accepting()
                limits = resource.getrlimit(resource.RLIMIT_NOFILE)
                for left in (0, 1):
                    free = os.dup(own.fileno())
                    os.close(free)
                    resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, limits[1]))
                    try:
                        assert takeover.has_connections()
                    finally:
                        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert not takeover.has_connections()
        takeover._dummy.close()
