"""Files that are sent whole and stored as documents."""
