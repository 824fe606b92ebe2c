"""What a run leaves on disk: where it lies, how it is written, what it says."""
