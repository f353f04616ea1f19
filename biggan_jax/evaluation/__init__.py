"""Rooms of `evaluate`: protocol, real side, one pass over the fakes, reports, following a run."""
