"""The command `index`: what it reads, compares, reports and follows."""
