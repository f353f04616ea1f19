"""`biggan plan` for a person: the report of one plan, and the table of a sweep."""

from typing import Any

from biggan_jax.planning import breakdown, input_needs
from biggan_jax.planning.chips import GIB

BOUNDS = {"compute": "matrix units", "hbm": "HBM traffic", "ici": "ICI", "dcn": "DCN"}
COLUMNS = ("fits", "peak GiB", "TFLOP", "HBM GB", "all-reduce", "GB", "step s >=", "bound by",
           "images/s <=", "hours >=", "chip-hours", "compile s")  # fmt: skip


def text(result: dict[str, Any]) -> str:
    """The report of one plan."""
    r = result
    verdict = "fits" if r["fits"] else "DOES NOT FIT"
    lines = [
        f"{place(r)}: {r['chips']:,} chips, batch {r['batch_size']:,} "
        f"({r['batch_size'] / r['chips']:g} a chip); per chip and step:",
        line("HBM, arguments", _gib(r["argument_bytes"])),
        line("HBM, temporaries", _gib(r["temporary_bytes"])),
        line("HBM, peak", f"{_gib(r['peak_bytes'])} of {_gib(r['hbm_bytes'])}: {verdict}"),
        line("largest batch", f"about {r['largest_batch_size']:,} (linear model of this compile, "
             "5% kept free)"),
        line("layer table", f"{si(r['flops_per_chip_expected'])}FLOP, element-wise included"),
    ]  # fmt: skip
    if not r["fits"]:
        return "\n".join([*lines, "what would help:", *(f"  {s}" for s in r["suggestions"])])
    lines += [
        line("compiled step", f"{si(r['flops_per_chip'])}FLOP of convolutions and products"),
        line("HBM traffic", f"{si(r['bytes_per_chip'])}B"),
    ]
    for kind, row in sorted(r["collectives"].items()):
        note = "" if kind not in r["unexpected_collectives"] else "  UNEXPECTED: data is moved"
        lines.append(line(kind, f"{row['count']} of {si(row['bytes'])}B in all{note}"))
    lines.append(
        line("all-reduce predicted", f"{si(r['all_reduce_bytes_predicted'])}B from parameters "
             "and batch norms")
    )  # fmt: skip
    if r["unknown_loops"]:
        lines.append(line("loops", f"{r['unknown_loops']} of unknown length count once"))
    lines.append("lower bounds of the time, from published peaks; a real step is slower:")
    lines += [line(BOUNDS[key], f"{si(s)}s") for key, s in r["seconds"].items()]
    if "dcn" not in r["seconds"] and r["slices"] > 1:
        lines.append(line("DCN", "no published figure: not bounded"))
    cost = "" if r["cost_usd"] is None else f", {r['cost_usd']:,.0f} USD"
    lines += [
        line("step", f">= {si(r['step_seconds_lower_bound'])}s ({BOUNDS[r['bound_by']]}), "
             f"<= {r['images_per_second']:,.0f} images/s"),
        line("whole run", f">= {r['hours']:.2f} hours, {r['chip_hours']:,.1f} chip-hours{cost}"),
        *input_needs.lines(r["input"]),
        f"compiled in {r['compile_seconds']:.0f} s"
        + (" with little effort (--fast): the real program moves less" if r["fast"] else ""),
    ]  # fmt: skip
    if r.get("traffic"):
        lines.append(breakdown.text(r["traffic"]))
    return "\n".join(lines)


def place(result: dict[str, Any]) -> str:
    """The topology and slices of a plan."""
    slices = result["slices"]
    return result["topology"] + (f" x {slices} slices" if slices > 1 else "")


def line(name: str, value: str) -> str:
    """One figure of a report."""
    return f"  {name:<22}{value}"


def _gib(count: float) -> str:
    return f"{count / GIB:.2f} GiB"


def si(value: float) -> str:
    """Three digits and a decimal prefix: '53.7 M' of 53_744_896."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, ""), (-3, "m")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:.3g} {prefix}"
    return f"{value * 1e6:.3g} u"


def table(plans: list[dict[str, Any]]) -> str:
    """One line for each plan of a sweep, per chip and per step."""
    keys = list(plans[0]["overrides"])
    rows = [[*keys, *COLUMNS]]
    for p in plans:
        row = [str(p["overrides"][key]) for key in keys]
        row += ["yes" if p["fits"] else "NO", f"{p['peak_bytes'] / GIB:.2f}"]
        if p["fits"]:
            reduced = p["collectives"].get("all-reduce", {"count": 0, "bytes": 0})
            row += [
                f"{p['flops_per_chip'] / 1e12:.3f}",
                f"{p['bytes_per_chip'] / 1e9:.2f}",
                str(reduced["count"]),
                f"{reduced['bytes'] / 1e9:.3f}",
                f"{p['step_seconds_lower_bound']:.4f}",
                p["bound_by"],
                f"{p['images_per_second']:,.0f}",
                f"{p['hours']:.2f}",
                f"{p['chip_hours']:,.0f}",
            ]
        else:
            row += ["-"] * 9
        rows.append([*row, f"{p['compile_seconds']:.0f}"])
    odd = sorted({kind for p in plans for kind in p["unexpected_collectives"]})
    lines = [aligned(rows), *([f"UNEXPECTED collectives: {', '.join(odd)}"] if odd else [])]
    return "\n".join(lines)


def aligned(rows: list[list[str]]) -> str:
    """A table of cells, one line a row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows
    )
