"""The configs that the package carries, which `--config` takes by name."""

from pathlib import Path

from biggan_jax.errors import UserError, did_you_mean

# In an installed package, else in a checkout.
_FOLDERS = (Path(__file__).parent / "carried", Path(__file__).parents[2] / "configs")


def files() -> dict[str, str]:
    """{name: file}, sorted by name."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0])
    return {file.stem: str(file) for file in sorted(folder.glob("*.py"))}


def text(name: str) -> str:
    """A config as a file to start from.

    Raises:
      UserError: no config has this name.
    """
    known = files()
    if name not in known:
        raise UserError(
            f"there is no config {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
        )
    return Path(known[name]).read_text(encoding="utf-8")
