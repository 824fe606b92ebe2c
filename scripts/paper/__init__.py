"""The experiments of Smith's report (arXiv 1803.09820), run again."""
