"""Words of a text as they are compared: characters in one form, and identifiers."""
