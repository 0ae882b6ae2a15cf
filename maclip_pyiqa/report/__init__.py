"""Pictures of scores and of what they consist of."""
