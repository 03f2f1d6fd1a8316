"""A streaming session-based recommender."""
