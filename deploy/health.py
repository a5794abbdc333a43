"""The health check of a container: status 0 if the server answers on its Unix socket.

It imports the standard library only, and needs neither an address nor a certificate.
"""

import http.client
import os
import socket
import sys

SECONDS = 4.0


def answers(path: str) -> bool:
    """Return whether GET /health over the socket at this path is answered with 200."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(SECONDS)
    try:
        connection.sock.connect(path)
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not answers(os.environ["INKWELL_UNIX_SOCKET"]))
