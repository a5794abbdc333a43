"""Documents together with their vectors, from files and into files."""
