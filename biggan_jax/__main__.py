"""`python -m biggan_jax`."""

import sys

from biggan_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
