"""The hint of a message: what a misspelt word most probably means."""

import random

import pytest

from biggan_jax import cli
from biggan_jax import config as config_lib
from biggan_jax.config import overrides
from biggan_jax.errors import did_you_mean, nearest

SETTINGS = sorted(config_lib.flatten(config_lib.default_config()))
WORDS = {
    "settings": SETTINGS,
    "options": ["--config", "--workdir", "--from", "--out", "--classes", "--seed", "--truncation"],
    "losses": ["hinge", "non_saturating", "wasserstein", "least_squares", "relativistic"],
    "commands": ["train", "sample", "evaluate", "inspect", "look", "plan", "bench", "doctor"],
}


def typos(word: str) -> set[str]:
    """What people write: a letter missing, swapped, wrong or twice, another case, no underscore."""
    start = max(word.rfind("."), word.rfind("-")) + 1
    i = random.Random(word).randrange(start, len(word) - 1)
    swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    found = {word[:i] + word[i + 1 :], swapped, word[:i] + "x" + word[i + 1 :]}
    found |= {word[:i] + word[i] + word[i:], word.upper(), word.replace("_", ""), f"{word}s"}
    return found - {word}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_a_typo_gives_the_word(words):
    tried = [(typo, word) for word in words for typo in typos(word) if typo not in words]
    missed = [(typo, word) for typo, word in tried if nearest(typo, words) != word]
    # `g_lr` with a wrong letter may be `d_lr`: some typos are the next word.
    assert len(missed) <= 0.03 * len(tried), missed


UNRELATED = """
weather potato username bar hello kubernetes lorem verbose threads temperature password gpu nothing
banana xyz model.banana data.zebra optimizer.potato --foo --gpu --verbose
"""


@pytest.mark.parametrize("word", ["", *UNRELATED.split()])
def test_an_unrelated_word_gets_no_hint(word):
    """A hint that has nothing to do with the word sends people astray."""
    for words in WORDS.values():
        assert did_you_mean(word, words) == ""


def test_the_case_of_the_known_word_is_kept():
    assert did_you_mean("trian", ["Train", "test"]) == " (did you mean 'Train'?)"
    assert did_you_mean("--wrkdir", ["--workdir", "--seed"]) == " (did you mean '--workdir'?)"


def test_a_setting_without_its_section():
    for word, setting in (("holdot", "data.holdout"), ("dropuot", "model.d_dropout")):
        assert overrides.near(word, SETTINGS) == setting
    assert overrides.near("banana", SETTINGS) is None


def test_a_path_that_holds_a_line_end_stays_on_one_line(tmp_path, capsys):
    for name in ("a\nb", ".hidden"):
        (tmp_path / "pets" / name).mkdir(parents=True)
    for spec in (f"folder:{tmp_path}/pets:no", f"folder:{tmp_path}/no\nwhere"):
        assert cli.main(["doctor", f"--data={spec}"]) == 2
        capsys.readouterr()
        prepare = ["prepare", f"--source={spec}", "--resolution=8", f"--out={tmp_path}/x"]
        assert cli.main(prepare) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "\\n" in line and "hidden" not in line
