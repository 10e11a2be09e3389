"""What the relay tells its operator: the log as a vocabulary of events, and the metrics."""
