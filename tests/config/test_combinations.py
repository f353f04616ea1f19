"""Every combination of `key=a,b,c` lists."""

import pytest

from biggan_jax.config import combinations
from biggan_jax.errors import UserError


@pytest.mark.parametrize(
    ("axes", "points"),
    [
        ([], [{}]),
        (["a=1,2"], [{"a": "1"}, {"a": "2"}]),
        (["a=1", "b.c=x,y"], [{"a": "1", "b.c": "x"}, {"a": "1", "b.c": "y"}]),
        (["config.mesh=(1,2),(2,1)"], [{"mesh": "(1,2)"}, {"mesh": "(2,1)"}]),
    ],
)
def test_every_combination(axes, points):
    assert combinations.parse(axes) == points


@pytest.mark.parametrize("axes", [["batch_size"], ["=3"], ["a=1,,2"], ["a=1", "a=2"]])
def test_bad_axes(axes):
    with pytest.raises(UserError, match="--sweep"):
        combinations.parse(axes)
