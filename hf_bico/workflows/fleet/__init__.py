"""Many fine-tunes × new bases × methods by one plan: each a process of its own, and a ledger of what is done."""
