"""What can be wrong with a whole config before any data or device is looked at."""

from ml_collections import ConfigDict

from biggan_jax.config import augmentation, domains
from biggan_jax.config.flat import flatten
from biggan_jax.errors import UserError


def validate(config: ConfigDict, num_devices: int) -> None:
    """Checks what can be known without data: domains and the arithmetic of the batch.

    Args:
      config: a full config.
      num_devices: devices of the mesh, over all processes.

    Raises:
      UserError: one line with both numbers and the setting to change.
    """
    domains.check(flatten(config))
    micro = num_devices * config.accumulation_steps
    if config.batch_size % micro:
        lower = max(config.batch_size // micro, 1) * micro
        raise UserError(
            f"batch_size {config.batch_size} is not divisible by {num_devices} devices x "
            f"{config.accumulation_steps} accumulation steps = {micro}: set "
            f"--config.batch_size={lower} or change --config.accumulation_steps"
        )
    group, part = config.bn_group_size, config.batch_size // config.accumulation_steps
    if part == 1:
        raise UserError(_of_one_example(config, num_devices))
    if group is not None and part % group:
        raise UserError(
            f"bn_group_size {group} does not divide the {part} examples of a forward (batch_size "
            f"{config.batch_size} / {config.accumulation_steps} accumulation steps) into groups of "
            "2 or more: set --config.bn_group_size to a divisor"
        )
    _check_decay(config.optimizer, config.num_steps)
    _check_clamp(config.regularizer)
    _check_heuristic(config.augment, config.data.holdout)


def _of_one_example(config: ConfigDict, num_devices: int) -> str:
    """What is wrong with batch statistics of a single example, as with a bn_group_size of 1."""
    batch = config.batch_size
    fewer = [n for n in range(1, batch // 2 + 1) if batch % (n * num_devices) == 0]
    more = f"--config.batch_size={2 * batch}"
    ways = f"--config.accumulation_steps={fewer[-1]} or {more}" if fewer else more
    return (
        f"batch_size {batch} / accumulation_steps {config.accumulation_steps} is 1 example a "
        f"forward, and G's batch statistics would be those of one image: set {ways}"
    )


def _check_decay(optimizer: ConfigDict, num_steps: int) -> None:
    """The learning rates' decay: both steps or neither, in order, and a form only with steps."""
    start, end = optimizer.decay_start_step, optimizer.decay_end_step
    if (start is None) != (end is None):
        unset = "start" if start is None else "end"
        raise UserError(
            f"optimizer.decay_start_step is {start} and optimizer.decay_end_step is {end}: set "
            f"--config.optimizer.decay_{unset}_step too, or neither"
        )
    if start is not None and not start < end:
        raise UserError(
            f"optimizer.decay_start_step is {start} and optimizer.decay_end_step is {end}: set "
            "--config.optimizer.decay_end_step to more than the start"
        )
    if start is None and optimizer.schedule not in (None, "constant"):
        raise UserError(
            f"optimizer.schedule is {optimizer.schedule!r}, but nothing says when the rates fall: "
            "set --config.optimizer.decay_start_step=0 and "
            f"--config.optimizer.decay_end_step={num_steps}"
        )


def _check_clamp(regularizer: ConfigDict) -> None:
    """As a ratio, the clamp may not ask for a first singular value below the second."""
    if regularizer.sigma_clamp_form != "ratio":
        return
    for key in ("g_sigma_clamp", "d_sigma_clamp"):
        ratio = regularizer[key]
        if ratio is not None and ratio < 1:
            raise UserError(
                f"regularizer.{key} is {ratio}, a ratio of the first singular value to the second, "
                f"which is never below 1: set --config.regularizer.{key} to 1 or more, or "
                "--config.regularizer.sigma_clamp_form=value"
            )


def _check_heuristic(augment: ConfigDict, holdout: float) -> None:
    """The held-out heuristic of augmentation needs images that are held out."""
    if augmentation.uses_held_out(augment) and not holdout:
        raise UserError(
            "augment.heuristic is held_out, but data.holdout is 0: set --config.data.holdout=0.1 "
            f"to keep a tenth of the images for it, or {augmentation.WITHOUT_HELD_OUT}"
        )
