"""The machine and the settings examined before, or while, a server runs."""
