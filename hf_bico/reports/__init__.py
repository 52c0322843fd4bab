"""What is told of a result: data, card, pictures, cost, verdict."""
