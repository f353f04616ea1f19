"""`biggan plan --evaluate` for a person: the report of one plan, and the table of a sweep."""

from typing import Any

from biggan_jax.planning import report
from biggan_jax.planning.chips import GIB

COLUMNS = ("samples a chip", "TFLOP", "HBM GB", "peak GiB", "scored in >=", "real side >=",
           "compile s")  # fmt: skip
UNCOUNTED = "copies between hosts and chips, latency, compiling, KID and the Frechet distance"


def text(result: dict[str, Any]) -> str:
    """The report of one plan."""
    r, e = result, result["evaluate"]
    lines = [
        f"{report.place(r)}: {r['chips']:,} chips of {e['hosts']:,} hosts; {e['samples']:,} "
        f"samples, {e['features']} features, {e['bn_mode']} batch norm; per chip:",
        report.line("samples", f"{e['samples_per_chip']:,}; {e['samples_per_host']:,} of the "
                    "busiest host, in whole batches"),
    ]  # fmt: skip
    for name, part in e["parts"].items():
        lines.append(
            report.line(
                name,
                f"{part['runs']:,} x {part['images_per_chip']}: "
                f"{report.si(part['flops_per_chip'])}FLOP, {report.si(part['bytes_per_chip'])}B of "
                f"HBM traffic, >= {report.si(part['seconds_lower_bound'])}s "
                f"({report.BOUNDS[part['bound_by']]})",
            )
        )
    joined, host = e["gather"], e["host"]
    cost = "" if e["cost_usd"] is None else f", {e['cost_usd']:,.4f} USD"
    lines += [
        report.line("sums joined", f"{report.si(joined['bytes_per_chip'])}B received, >= "
                   f"{report.si(joined['seconds_lower_bound'])}s"),
        report.line("on each host", f"{report.si(host['flops'])}FLOP in float64, >= "
                   f"{report.si(host['seconds_lower_bound'])}s"),
        report.line("HBM, peak", f"{e['peak_bytes'] / GIB:.2f} of {e['hbm_bytes'] / GIB:.2f} GiB"),
        f"lower bounds, from published peaks; not counted: {UNCOUNTED}:",
        report.line("all samples", f">= {report.si(e['seconds_lower_bound'])}s, <= "
                   f"{e['samples'] / e['seconds_lower_bound']:,.0f} samples/s{cost}"),
        _real(e["real"]),
        f"compiled in {r['compile_seconds']:.0f} s with little effort: the real programs may move "
        "a tenth less",
    ]  # fmt: skip
    return "\n".join(lines)


def _real(real: dict[str, Any] | None) -> str:
    if real is None:
        return report.line("real side", "how many images there are is not known: add --images N")
    return report.line(
        "real side",
        f"{real['images']:,} images, >= {report.si(real['seconds_lower_bound'])}s, of which "
        f"{report.si(real['read_seconds'])}s to read them; once, then kept in the cache",
    )


def table(plans: list[dict[str, Any]]) -> str:
    """One line for each plan of a sweep."""
    keys = list(plans[0]["overrides"])
    rows = [[*keys, *COLUMNS]]
    for p in plans:
        e = p["evaluate"]
        real = e["real"]
        rows.append(
            [
                *(str(p["overrides"][key]) for key in keys),
                f"{e['samples_per_chip']:,}",
                f"{e['flops_per_chip'] / 1e12:.3f}",
                f"{e['bytes_per_chip'] / 1e9:.2f}",
                f"{e['peak_bytes'] / GIB:.2f}",
                f"{report.si(e['seconds_lower_bound'])}s",
                "-" if real is None else f"{report.si(real['seconds_lower_bound'])}s",
                f"{p['compile_seconds']:.0f}",
            ]
        )
    return report.aligned(rows)
