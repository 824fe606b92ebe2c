"""What trials mean: curves, ranking with intervals, clues, and the recommendation. Pure functions of records."""
