"""Getting a message onward: one attempt, whichever way is open, and its full account in log and metrics."""
