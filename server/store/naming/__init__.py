"""Names of collections on the disk: aliases, and renaming."""
