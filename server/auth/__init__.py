"""Access: keys, quotas, the check of the host, and the audit."""
