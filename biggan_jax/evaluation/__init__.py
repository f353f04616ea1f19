"""Scores of a generator, each with its protocol: one feature pass, reports, following a run."""
