"""Trained networks as plain functions, and files of what they make."""
