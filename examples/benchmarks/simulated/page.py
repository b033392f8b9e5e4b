"""The results as tables, as ``scale.md`` and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def lines(results: dict[str, Any]) -> list[str]:
    """The tables of the parts that were run."""
    text: list[str] = []
    if "audit" in results:
        text += _audits(results["audit"])
    if "curve" in results:
        text += _curve(results["curve"])
    if "dispatch" in results:
        d = results["dispatch"]
        text += [
            f"Dispatch without work: {d['a_second']:.0f} batches of {d['size']} draws a second, "
            f"{d['driver_cpu_us_a_batch']:.0f} us of driver CPU a batch.",
            "",
        ]
    if "keys" in results:
        k = results["keys"]
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in k["of_it"].items())
        text += [
            f"{k['keys']:,} batches of one draw through the books: {k['seconds']:.0f} s ({parts}), "
            f"{k['peak_mib']:,.0f} MiB.",
            "",
        ]
    return text


def _audits(rows: list[dict[str, Any]]) -> list[str]:
    phases = ("prompts", "planning", "rounds", "results", "report")
    text = [
        "| draws | prompts | batches | CPU a draw, us | of it: "
        + " | ".join(phases)
        + " | beside it | peak, MiB | wall, s |",
        "|---|---|---|---|" + "---|" * (len(phases) + 3),
    ]
    for row in rows:
        each = [1e6 * row["phases"].get(p, {"cpu_s": 0.0})["cpu_s"] / row["draws"] for p in phases]
        text.append(
            f"| {row['draws']:,} | {row['prompts']:,} | {row['batches']:,} | {row['cpu_us_a_draw']:.0f} | "
            + " | ".join(f"{x:.1f}" for x in each)
            + f" | {row.get('beside_us_a_draw', 0.0):.1f} | {row['peak_mib']:,.0f} | {row['wall_s']:,.0f} |"
        )
    return [*text, ""]


def _curve(rows: list[dict[str, Any]]) -> list[str]:
    text = [
        "| replicas | batches | draws | work, s | ideal, s | took, s | efficiency | driver CPU, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    text += [
        f"| {r['replicas']} | {r['batches']:,} | {r['draws']:,} | {r['work_s']:,.0f} | {r['ideal_s']:.1f} | "
        f"{r['seconds']:.1f} | {r['efficiency']:.3f} | {r['driver_cpu_s']:.1f} |"
        for r in rows
    ]
    return [*text, ""]


def write(folder: Path, results: dict[str, Any]) -> None:
    """The figure; and in ``scale.md`` the tables between its two marks: the words around them are written by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    if "curve" in results:
        _figure(results["curve"], folder / "scale.svg")
    path = folder / "scale.md"
    begin, end = "<!-- measured -->\n", "<!-- end -->\n"
    before, after = "", ""
    if path.exists():
        before, _, rest = path.read_text("utf-8").partition(begin)
        after = rest.partition(end)[2]
    path.write_text(f"{before}{begin}\n" + "\n".join(lines(results)) + f"{end}{after}", "utf-8")


def _figure(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "scale"})
    drawn, ax = pyplot.subplots(figsize=(6.4, 3.4))
    n = [r["replicas"] for r in rows]
    ax.plot(n, [r["efficiency"] for r in rows], marker="o", color="#1f6fb2")
    ax.axhline(1.0, color="#888888", linewidth=1)
    ax.axhline(0.9, color="#888888", linewidth=1, linestyle=":")
    ax.set_xscale("log", base=2)
    ax.set_xticks(n, [str(x) for x in n])
    ax.set_ylim(0, 1.05)
    ax.set_xlabel("replicas")
    ax.set_ylabel("ideal time / time")
    drawn.tight_layout()
    drawn.savefig(path, metadata={"Date": None})
    pyplot.close(drawn)
