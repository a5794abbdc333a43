"""That no client calls home is checked after every test; here, that the check would notice."""

import socket

from connections import elsewhere


def test_an_address_elsewhere_is_noticed() -> None:
    # A number is not looked up anywhere.
    socket.getaddrinfo("192.0.2.1", 443)
    assert elsewhere == ["192.0.2.1"]
    elsewhere.clear()
