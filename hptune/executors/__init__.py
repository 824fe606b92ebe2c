"""Where trials run. No executor changes a result."""
