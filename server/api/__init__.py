"""HTTP: operations on paths, as thin translations between requests and the rooms below."""
