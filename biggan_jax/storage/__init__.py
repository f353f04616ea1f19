"""What a run keeps: paths, model directories, checkpoints with digests, weights, metrics."""
