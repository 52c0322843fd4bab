"""Changes of weights on disk: task vectors, adapters and deltas."""
