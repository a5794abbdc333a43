"""Search at the command line: the options of a search, its request, and what its reply shows."""
