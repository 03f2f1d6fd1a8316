"""Click logs of our own, from a process that is known, so that the best possible recommender is known too."""
