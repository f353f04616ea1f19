"""Files of the peers for the import tests: what torch.save writes, or safetensors without torch."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests import peer

try:
    import torch
except ImportError:
    torch = None

FIXTURES = Path(__file__).parent / "fixtures"


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Writes a state_dict as `path`.pth, or as .safetensors where torch is not installed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if torch is None:
        path = path.with_suffix(".safetensors")
        save_file({k: np.array(v, order="C") for k, v in arrays.items()}, path)
        return path
    path = path.with_suffix(".pth")
    torch.save({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}, path)
    return path


def open_fixture(name: str, fixtures_dir: Path | None = None):
    """The .npz of a fixture, and its state_dict."""
    f = np.load((fixtures_dir or FIXTURES) / f"{name}.npz")
    return f, peer.split(f, "sd")


def imported(capsys, *argv) -> dict:
    """The JSON of a `biggan import` that succeeds."""
    from biggan_jax import cli

    assert cli.main(["import", "--json", *map(str, argv)]) == 0
    return json.loads(capsys.readouterr().out)
