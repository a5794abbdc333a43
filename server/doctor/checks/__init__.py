"""The doctor's checks, by noun: pure functions from facts to findings, which ask the machine nothing."""
