"""Whether the probability of augmentation is fixed or controlled, as the settings of it say."""

HELD_OUT = "held_out"  # of `augment.heuristic`


def is_controlled(policy: str, probability: float | None, target: float | None) -> bool:
    """Whether a heuristic moves the probability.

    Args:
      policy, probability, target: of the `augment` section; None where unset.
    """
    if policy == "none":
        return False
    return target is not None or (policy == "ada" and probability is None)
