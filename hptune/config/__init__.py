"""The config: its schema, how files are read into it, and how it is written back."""
