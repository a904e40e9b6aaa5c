"""Ports for the processes of a platform."""

import socket

import psutil

from bench.own_platform import free_ports


def test_a_free_port_is_given_to_nobody_else_and_can_be_listened_on() -> None:
    """As the kernel sees it: it chooses no port that a connection ended on in this minute."""
    ports = set(free_ports(3))
    assert len(ports) == 3
    assert ports <= ended_on()
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


def test_a_port_that_was_only_listened_on_may_be_chosen_again() -> None:
    """The control: the plain way to find a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert port not in ended_on()


def ended_on() -> set[int]:
    """Local ports of connections that ended lately."""
    return {each.laddr.port for each in psutil.net_connections("tcp4") if each.status == psutil.CONN_TIME_WAIT}
