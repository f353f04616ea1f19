"""Makes the pictures of gallery.md by the commands that stand in it."""

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

from biggan_jax import cli

PAGE = Path(__file__).with_name("gallery.md")
_BLOCK = re.compile(r"^```\n(.*?)^```$", re.M | re.S)


def commands(page: str) -> list[list[str]]:
    """The commands of the page's blocks, as words without `biggan`."""
    lines = "".join(_BLOCK.findall(page)).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("biggan ")]


def main() -> int:
    """Runs the commands from the folder above `docs`, and stops at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=Path, help="in the place of runs/")
    parser.add_argument("--only", metavar="KIND", help="of `biggan look`; default: all")
    args = parser.parse_args()
    runs = args.runs and str(args.runs.absolute())
    os.chdir(PAGE.parent.parent)
    for words in commands(PAGE.read_text()):
        if (words[0] == "train" and runs) or args.only not in (None, *words[:2]):
            continue
        if runs:
            words = [re.sub("^runs(?=/)", runs, word) for word in words]
        print("biggan", shlex.join(words), flush=True)
        if code := cli.main(words):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
