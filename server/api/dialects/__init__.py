"""The forms of other servers' requests and replies, one file for each. Dialects never import each other."""
