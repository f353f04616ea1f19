"""What processes tell each other, between two real ones."""

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
