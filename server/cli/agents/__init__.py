"""An MCP server, by which agents search a running server; it has neither models nor documents itself."""
