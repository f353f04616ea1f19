"""What a person can change when a training step does not fit the memory."""

from ml_collections import ConfigDict

REMAT = "--config.remat=all"


def remedy(config: ConfigDict, num_devices: int, *, resumed: bool = False) -> str:
    """Names settings, with values that `train` takes, under which a step needs less memory.

    Args:
      config: of the run.
      num_devices: of the mesh, over all processes.
      resumed: whether the run goes on from a checkpoint, which keeps its batch as it is.

    Returns:
      What to put behind the same command, for a person.
    """
    batch, parts = config.batch_size, config.accumulation_steps
    ways = []
    if not resumed:
        fits = [
            f"--config.accumulation_steps={n}"
            for n in range(parts + 1, batch // 2 + 1)
            if batch % (n * num_devices) == 0 and _groups_fit(config, batch // n)
        ]
        ways += fits[:1]
        unit = num_devices * parts
        lower = batch // 2 // unit * unit
        if lower >= 2 * parts and _groups_fit(config, lower // parts):
            ways.append(f"--config.batch_size={lower}")
    if "all" not in config.remat and config.model.name != "dcgan":  # which has no blocks
        ways.append(REMAT)
    ways = ways or [f"--config.model.ch={max(config.model.ch // 2, 1)}"]
    *most, last = (f"`{way}`" for way in ways)
    choice = f"{', '.join(most)} or {last}" if most else last
    now = f"batch_size is {batch}, accumulation_steps {parts}, remat {tuple(config.remat)}"
    return f"{now}: repeat the command with {choice}, or on more devices"


def _groups_fit(config: ConfigDict, examples: int) -> bool:
    return config.bn_group_size is None or examples % config.bn_group_size == 0
