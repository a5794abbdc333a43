"""The check after every test that no client calls home would notice one that does."""

import socket

from connections import elsewhere


def test_an_address_elsewhere_is_noticed() -> None:
    # A number is not looked up anywhere.
    socket.getaddrinfo("192.0.2.1", 443)
    assert elsewhere == ["192.0.2.1"]
    elsewhere.clear()
