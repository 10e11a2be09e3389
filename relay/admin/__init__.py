"""How the operator sees and steers a running relay: health, metrics, and the queue."""
