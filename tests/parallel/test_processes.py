"""What processes tell each other, between two real ones."""

import subprocess
import sys

from tests import runs

# Each waits a moment at random places, so that either may be the last to read.
PROGRAM = """
import json, random, sys, time
import jax
from biggan_jax.parallel import processes

port, number = sys.argv[1], int(sys.argv[2])
jax.distributed.initialize(f"localhost:{port}", 2, number)
service, keys, seen = processes.client(), [], []
chance = random.Random(number)
for i in range(30):
    time.sleep(chance.choice([0, 0, 0.01]))
    seen.append(processes.gather({"process": number, "call": i}))
    if i in (4, 29):
        # After the first barrier the keys of the call before are gone, before the second no new
        # ones come.
        service.wait_at_barrier("gathered", 60_000)
        keys.append(len(service.key_value_dir_get(processes.PREFIX)))
        service.wait_at_barrier("counted", 60_000)
with processes.main_first():
    first = time.time()
result = {"keys": keys, "seen": seen, "first": first, "main": processes.from_main(number)}
print("RESULT" + json.dumps(result), flush=True)
jax.distributed.shutdown()
"""


def test_keys_are_deleted_once_all_have_read_them():
    zero, one = runs.two_processes(PROGRAM)
    assert zero["seen"] == one["seen"]
    assert zero["seen"] == [[{"process": p, "call": i} for p in range(2)] for i in range(30)]
    assert zero["keys"] == one["keys"] == [2, 2]  # those of the last call, of either process
    assert zero["first"] <= one["first"] and one["main"] == 0


def test_processes_that_wait_for_each_other_are_read_together(tmp_path):
    """The first one ends after the second one, whose pipe is full before that."""
    wait = "import pathlib, time\nwhile not pathlib.Path('done').exists(): time.sleep(0.01)"
    talk = "print('x' * 300_000)\nopen('done', 'w').close()"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for code in (wait, talk)
    ]
    found = runs.read_all(started, timeout=30)
    assert [len(out) for out, _ in found] == [0, 300_001]
