"""Stands for `biggan train` in a sweep. A file SEED in its folder says how a run ends, once."""

import json
import signal
import sys
import time
from pathlib import Path

from biggan_jax.config import config_file

config, workdir, *overrides = sys.argv[1:]
seeds = [int(text.partition("=")[2]) for text in overrides if text.startswith("--seeds=")]
c = config_file.load(config, [text for text in overrides if not text.startswith("--seeds=")])
workdir = Path(workdir)
workdir.mkdir(parents=True, exist_ok=True)
if not seeds:
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
for i in range(*(seeds or [1])):
    place = workdir / f"seed_{c.seed + i}" if seeds else workdir
    own = c.to_dict() | {"seed": c.seed + i}
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps(own))
    lines = [
        {"step": 2, "images_seen": 32, "d_loss": 2.0, "eval/fid": 5.0},
        {"step": 4, "images_seen": 64, "d_loss": 1.0 + own["seed"], "eval/fid": 7.5},
        {"step": 4, "images_seen": 64, "g_loss": None},
    ]
    text = "".join(json.dumps(x) + "\n" for x in lines)
    (place / "metrics.jsonl").write_text(text + '{"torn')
    (place / "checkpoints" / str(c.num_steps)).mkdir(parents=True)
print("not for stdout")
