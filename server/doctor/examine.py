"""All checks of machine and settings: what is fine, what is not, and what to do.

`facts` reads, `checks` judges. Each check yields at least one finding, so a reader sees everything that
was examined.
"""

from server.doctor.checks import access, databases, disk, memory, network, processor, software
from server.doctor.facts import Facts
from server.doctor.findings import Finding

# By subject, in the order of the output.
CHECKS = {
    "cpu": processor.of_cpu,
    "lanes": processor.of_lanes,
    "memory": memory.of_memory,
    "huge_pages": processor.of_huge_pages,
    "open_files": network.of_open_files,
    "python": software.of_python,
    "clock": software.of_clock,
    "model": software.of_models,
    "disk": disk.of_disk,
    "data": disk.of_collections,
    "databases": databases.of_databases,
    "port": network.of_port,
    "socket": network.of_socket,
    "address": access.of_address,
    "tls": access.of_tls,
    "keys": access.of_keys,
    "audit": access.of_audit,
}


def examine(facts: Facts) -> list[Finding]:
    """Return the findings of all checks."""
    return [finding for check in CHECKS.values() for finding in check(facts)]
