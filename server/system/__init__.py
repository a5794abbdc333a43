"""What the kernel and the supervisor tell: cores, memory, huge pages, host facts, readiness."""
