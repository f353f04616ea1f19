"""Scores of generated images: features, streaming moments, and scores on plain arrays."""
