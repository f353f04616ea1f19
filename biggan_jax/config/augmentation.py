"""Whether the probability of augmentation is fixed or controlled, as the settings of it say."""

HELD_OUT = "held_out"  # of `augment.heuristic`
WITHOUT_HELD_OUT = "--config.augment.heuristic=signs"  # which needs no held-out images


def is_controlled(policy: str, probability: float | None, target: float | None) -> bool:
    """Whether a heuristic moves the probability.

    Args:
      policy, probability, target: of the `augment` section; None where unset.
    """
    if policy == "none":
        return False
    return target is not None or (policy == "ada" and probability is None)


def uses_held_out(augment) -> bool:
    """Whether held-out images move the probability.

    Args:
      augment: the section of the config.
    """
    controlled = is_controlled(augment.policy, augment.probability, augment.target)
    return controlled and augment.heuristic == HELD_OUT
