"""Request and reply formats of other servers, one file a dialect. Dialects never import each other."""
