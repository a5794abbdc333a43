"""What the doctor looks at, by noun: pure functions from facts to findings, which ask the machine nothing."""
