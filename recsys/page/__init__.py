"""What the pages that recsys writes share: their look, their plots' look, and that each is one file."""
