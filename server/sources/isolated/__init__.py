"""Files read in a process of their own, within limits of time and memory and without rights."""
