"""`biggan configs`: the configs that come with the package."""

import argparse

from biggan_jax.cli import options
from biggan_jax.cli.output import say


def add(command) -> None:
    """Adds the command."""
    sub = command("configs", run, "list the configs that --config takes by name, or show one")
    actions = sub.add_subparsers(dest="action", metavar="show NAME")
    show = actions.add_parser("show", help="print one, to start a file of your own from")
    show.add_argument("name", metavar="NAME")
    options.add_json(show)


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan configs`."""
    options.no_overrides(overrides)
    from biggan_jax.config import carried, summaries

    if args.action == "show":
        text = carried.text(args.name)
        say(args, text.removesuffix("\n"))
        return {"name": args.name, "text": text}, 0
    found = summaries.read()
    width = max(len(one.name) for one in found)
    say(args, "\n".join(f"{one.name:<{width}}  {one.resolution:>4}  {one.about}" for one in found))
    return {"configs": [one._asdict() for one in found]}, 0
