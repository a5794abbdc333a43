"""One server, and a warm second one."""
