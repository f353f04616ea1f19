"""The GAN game: what the players minimise, the step, the state, the loop and its hooks."""
