#!/usr/bin/env python3
"""Times the training step of BigGAN-PyTorch on synthetic data: its own modules, our loop.

  launch/bench_peer.py CHECKOUT --resolution 128 --batch 128 [--channels-last] [--compile]

Autocast to bfloat16, fused Adam and a fused average where the device has them: the settings under
which it is fastest, which its own scripts of 2019 do not set. Prints one JSON object.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path

import torch

WARM_UP_STEPS = 3
ROUNDS = 3
# z is split into one chunk of 20 for each of these many layers; where attention stands.
CHUNKS = {32: 4, 64: 5, 128: 6, 256: 7}
G_ATTENTION = {32: "0", 64: "32", 128: "64", 256: "128"}
D_ATTENTION = {32: "0", 64: "32", 128: "64", 256: "64"}


class Peer:
    """G, D, their optimizers and the average, as the peer's launch script sets them."""

    def __init__(self, args: argparse.Namespace):
        import BigGAN  # noqa: PLC0415  of the checkout, which the command line names

        self.args, size = args, args.resolution
        common = {"resolution": size, "n_classes": args.classes, "SN_eps": 1e-6, "no_optim": True}
        relu = torch.nn.ReLU(inplace=False)
        self.G = BigGAN.Generator(
            G_ch=args.ch, dim_z=20 * CHUNKS[size], hier=True, G_shared=True, shared_dim=128,
            G_attn=args.attention or G_ATTENTION[size], G_activation=relu, BN_eps=1e-5, **common,
        ).to(args.device)  # fmt: skip
        self.D = BigGAN.Discriminator(
            D_ch=args.ch, D_attn=args.attention or D_ATTENTION[size], D_activation=relu, **common
        ).to(args.device)
        adam = {"betas": (0.0, 0.999), "eps": 1e-6, "fused": args.device == "cuda"}
        self.g_optim = torch.optim.Adam(self.G.parameters(), lr=1e-4, **adam)
        self.d_optim = torch.optim.Adam(self.D.parameters(), lr=4e-4, **adam)
        floats = [v for v in self.G.state_dict().values() if v.is_floating_point()]
        self.trained, self.average = floats, [v.detach().clone() for v in floats]
        compiled = torch.compile if args.compile else lambda module: module
        self.g, self.d = compiled(self.G), compiled(self.D)

    def draw(self):
        """Latents and classes of one batch of fakes."""
        a = self.args
        z = torch.randn(a.batch, self.G.dim_z, device=a.device)
        return z, torch.randint(0, a.classes, (a.batch,), device=a.device)

    def judge(self, images, labels):
        """D's logits in float32."""
        if self.args.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.d(images, labels).float()

    def step(self, images, labels) -> None:
        """D updates on images [num_d_steps, N, 3, H, W], one G update, the average."""
        cast = torch.autocast(self.args.device, dtype=torch.bfloat16)
        self.D.requires_grad_(True)
        for real, real_labels in zip(images, labels, strict=True):
            self.d_optim.zero_grad(set_to_none=True)
            z, fake_labels = self.draw()
            with cast:
                with torch.no_grad():
                    fake = self.g(z, self.G.shared(fake_labels))
                joint = torch.cat([fake.to(real.dtype), real])
                logits = self.judge(joint, torch.cat([fake_labels, real_labels]))
            fake_logits, real_logits = logits.chunk(2)
            loss = torch.relu(1 - real_logits).mean() + torch.relu(1 + fake_logits).mean()
            loss.backward()
            self.d_optim.step()
        self.D.requires_grad_(False)
        self.g_optim.zero_grad(set_to_none=True)
        z, fake_labels = self.draw()
        with cast:
            loss = -self.judge(self.g(z, self.G.shared(fake_labels)), fake_labels).mean()
        loss.backward()
        self.g_optim.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.trained, 1e-4)


def measure(args: argparse.Namespace) -> dict:
    """Builds the players and times their step."""
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    shape = (args.d_steps, args.batch, 3, args.resolution, args.resolution)
    images = torch.randn(shape, device=args.device)
    labels = torch.randint(0, args.classes, shape[:2], device=args.device)
    with contextlib.redirect_stdout(sys.stderr):  # the peer talks while it is built
        peer = Peer(args)

        def wait() -> float:
            if args.device == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter()

        def steps(count: int) -> float:
            start = wait()
            for _ in range(count):
                peer.step(images, labels)
            return (wait() - start) / count

        first = steps(1)
        steps(WARM_UP_STEPS - 1)
        # In a row, as ours are: what the host does passes while the device computes.
        step = statistics.median(steps(args.steps) for _ in range(ROUNDS))
    cuda = args.device == "cuda"
    return {
        "images_per_second": args.batch * args.d_steps / step,
        "step_seconds": step,
        "first_step_seconds": first,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "torch": torch.__version__,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("checkout", type=Path)
    add("--resolution", type=int, default=128, choices=sorted(CHUNKS))
    add("--ch", type=int, default=96)
    add("--batch", type=int, default=128)
    add("--d-steps", type=int, default=2)
    add("--classes", type=int, default=1000)
    add("--attention", help="side of the maps that attention works on, in both players")
    add("--channels-last", action="store_true")
    add("--compile", action="store_true")
    add("--device", default="cuda")
    add("--steps", type=int, default=5)
    add("--threads", type=int, default=0, help="of the CPU; 0 leaves PyTorch's choice")
    args = parser.parse_args()
    sys.path.insert(0, str(args.checkout))
    print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
