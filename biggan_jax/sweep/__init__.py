"""Many runs: every combination of overrides, started, resumed and compared."""
