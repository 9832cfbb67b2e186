"""The proxy passes bytes on, late, not at all, or breaks."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Link, Links
from tests.support.waiting import wait_until


def echo(server: socket.socket) -> None:
    def answer(client: socket.socket) -> None:
        with client:
            while piece := client.recv(65536):
                client.sendall(piece)

    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(client,), daemon=True).start()


@pytest.fixture
def link() -> Iterator[Link]:
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=echo, args=(server,), daemon=True).start()
    with Links(1) as links:
        links[1].lead_to(server.getsockname()[1])
        yield links[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def connect(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=10.0)


def receive(client: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        piece = client.recv(count - len(got))
        if not piece:
            break
        got += piece
    return got


def test_bytes_pass(link: Link) -> None:
    sent = bytes(range(256)) * 4000
    with connect(link) as client:
        threading.Thread(target=client.sendall, args=(sent,)).start()
        assert receive(client, len(sent)) == sent


def test_a_slow_link_takes_its_time(link: Link) -> None:
    link.slow(0.2)
    with connect(link) as client:
        began = time.monotonic()
        client.sendall(b"x")
        assert receive(client, 1) == b"x"
        assert time.monotonic() - began >= 0.4  # there and back


def test_a_stuck_link_keeps_what_it_was_given(link: Link) -> None:
    with connect(link) as client:
        link.stuck()
        client.sendall(b"later")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(5)
        link.heal()
        client.settimeout(10.0)
        assert receive(client, 5) == b"later"


def test_a_cut_link_breaks_and_refuses_until_it_is_healed(link: Link) -> None:
    with connect(link) as client:
        client.sendall(b"x")
        assert receive(client, 1) == b"x"
        link.cut()
        assert broken(client)
    with connect(link) as refused:
        assert broken(refused)
    link.heal()

    def passes() -> bool:
        with connect(link) as client:
            client.sendall(b"y")
            return receive(client, 1) == b"y"

    wait_until(passes, 10.0, "the link is whole again")


def broken(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True
