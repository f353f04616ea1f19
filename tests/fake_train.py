"""Stands for `biggan train` in a sweep. A file SEED in its folder says how a run ends, once."""

import json
import signal
import sys
import time
from pathlib import Path

from biggan_jax.config import config_file

config, workdir, *overrides = sys.argv[1:]
c = config_file.load(config, overrides)
workdir = Path(workdir)
workdir.mkdir(parents=True, exist_ok=True)
(workdir / "config.json").write_text(json.dumps(c.to_dict()))
with open(workdir / "calls", "a") as f:
    f.write("called\n")
ending = Path(__file__).with_name(str(c.seed))
if ending.exists():
    code = ending.read_text()
    ending.unlink()
    if code == "wait":
        seen = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda n, frame: seen.append(n))
        print("waiting", file=sys.stderr, flush=True)
        while not seen:
            time.sleep(0.02)
        time.sleep(0.3)  # saving; a second signal would arrive meanwhile
        (workdir / "signals").write_text(json.dumps([int(n) for n in seen]))
        code = {signal.SIGINT: 130, signal.SIGTERM: 75}[seen[0]]
    print("biggan: this run ends early", file=sys.stderr)
    sys.exit(int(code))
lines = [
    {"step": 2, "images_seen": 32, "d_loss": 2.0, "eval/fid": 5.0},
    {"step": 4, "images_seen": 64, "d_loss": 1.0 + c.seed, "eval/fid": 7.5},
    {"step": 4, "images_seen": 64, "g_loss": None},
]
(workdir / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines) + '{"torn')
(workdir / "checkpoints" / str(c.num_steps)).mkdir(parents=True)
print("not for stdout")
