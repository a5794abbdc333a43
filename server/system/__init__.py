"""The kernel and the supervisor: cores, memory, huge pages, facts of the host, readiness."""
