#!/usr/bin/env python3
"""bench/report.py DATA.json OUT.html -- the page that scripts/bench --html writes.

DATA is what scripts/bench has measured.  The page has no reference to anything outside: plots are drawn by
matplotlib and put into it as SVG, with their text as text.  For each workload there are

  - the table, with processor time and peak memory beside every figure,
  - bars of its throughput or other chief figure, with what each cost beside it,
  - latencies: percentiles against time, both axes logarithmic, one line for each peer,
  - how many pauses of each kind there were, by length,
  - the heap over time with the goal that the collector had set itself, from the trace of one run,

as far as its programs say.  A bar is a median, its whisker goes from the lowest run to the highest.
"""
import html
import io
import json
import math
import re
import statistics
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  the backend comes first
from matplotlib.ticker import FuncFormatter, NullLocator  # noqa: E402

plt.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "grey", "font.size": 8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False,
})
COLOURS = dict(zip(
    ["grey", "boehm", "malloc", "mimalloc", "jemalloc", "go", "java", "array", "tree", "heap", "bump"],
    ["#333333", "#d62728", "#1f77b4", "#17becf", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2",
     "#bcbd22", "#7f7f7f"]), **{"grey-balance": "#999999"})
KINDS = {"handshake": "#1f77b4", "assist": "#ff7f0e", "wait": "#2ca02c", "hold": "#d62728",
         "stop": "#9467bd", "scavenge": "#8c564b"}
HEADLINES = {  # what is drawn as bars; of other workloads their throughputs, or else their first metric
    "graph": ["wall_per_object", "mutators"], "cache": ["capacity"], "growth": ["grow_cpu", "replace_cpu"],
    "threads": ["rate", "gap_max"], "handshake": ["cycle_p50", "pause_max"],
}
MOST_POINTS = 400  # of a line over time; more can't be seen
MOST_PANELS = 24   # of heaps over time

STYLE = """
body { font: 14px/1.4 sans-serif; max-width: 1150px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-size: 12px; margin: 1em 0 }
th, td { padding: 1px 8px; text-align: right; white-space: nowrap }
th:first-child, td:first-child, td.left { text-align: left }
tr.case td { font-weight: bold; text-align: left; padding-top: 8px; border-bottom: 1px solid #bbb }
svg { max-width: 100%; height: auto } .note { color: #666 } details { margin: 1em 0 }
"""


class Row:
    """One line of the table: a workload's case and metric, and what each peer reached."""

    def __init__(self, data, order):
        self.workload, self.case, self.metric = data["workload"], data["case"], data["metric"]
        self.peers = {p: data["peers"][p] for p in order if p in data["peers"]}
        some = next(iter(self.peers.values()))[0]
        self.unit, self.higher = some["unit"], some["better"] == "higher"

    def values(self, peer, name="value"):
        return [float(result[name]) for result in self.peers[peer]]

    def median(self, peer, name="value"):
        return statistics.median(self.values(peer, name))


def svg_of(figure):
    """The figure as SVG that stands inside HTML: there neither prolog nor name spaces are wanted."""
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)


def panels(count, columns, width, height):
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.remove()
    figure.subplots_adjust(hspace=0.65, wspace=0.3)
    return figure, flat[:count]


# ---- bars --------------------------------------------------------------------------------------------------

def draw_bars(axis, rows, name, title):
    """One group of bars for each row, one bar for each peer in it."""
    peers = list(dict.fromkeys(p for row in rows for p in row.peers))
    width = 0.8 / len(peers)
    for index, peer in enumerate(peers):
        place, height, below, above = [], [], [], []
        for group, row in enumerate(rows):
            if peer in row.peers:
                values, median = row.values(peer, name), row.median(peer, name)
                place.append(group + (index - (len(peers) - 1) / 2) * width)
                height.append(median)
                below.append(median - min(values))
                above.append(max(values) - median)
        axis.barh(place, height, width, xerr=[below, above], color=COLOURS.get(peer), label=peer,
                  error_kw={"elinewidth": 0.8, "ecolor": "#000000"})
    axis.set_title(title, fontsize=8)
    axis.set_yticks(range(len(rows)), [row.case for row in rows])
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)


def plot_bars(rows):
    """The workload's chief figures, beside what they cost."""
    throughputs = list(dict.fromkeys(row.metric for row in rows if row.higher))
    result = ""
    for metric in HEADLINES.get(rows[0].workload) or throughputs or [rows[0].metric]:
        chosen = [row for row in rows if row.metric == metric]
        if not chosen:
            continue
        bars = sum(len(row.peers) for row in chosen)
        figure, axes = plt.subplots(1, 3, figsize=(11, 0.9 + 0.16 * bars + 0.1 * len(chosen)), sharey=True,
                                    gridspec_kw={"width_ratios": [2, 1, 1], "wspace": 0.08})
        better = "more is better" if chosen[0].higher else "less is better"
        draw_bars(axes[0], chosen, "value", "%s, %s (%s)" % (metric, chosen[0].unit, better))
        draw_bars(axes[1], chosen, "cpu_s", "processor time, s")
        draw_bars(axes[2], chosen, "rss_mib", "peak memory, MiB")
        for axis in axes[1:]:  # which shares its groups with the first, turned over once
            axis.tick_params(left=False)
        axes[0].set_ylim(len(chosen) - 0.5, -0.5)
        axes[2].legend(loc="center left", bbox_to_anchor=(1, 0.5))
        result += svg_of(figure)
    return result


# ---- series ------------------------------------------------------------------------------------------------

def points_of(series):
    return [tuple(map(float, point.split(":"))) for point in series["points"].split(",") if point]


def plot_percentiles(series, order):
    """Time by percentile, where the axis counts nines; the median of the runs at each percentile."""
    cases = list(dict.fromkeys((s["case"], s["name"]) for s in series))
    figure, axes = panels(len(cases), 2, 5, 2.8)
    for axis, (case, name) in zip(axes, cases):
        for peer in order:
            runs = [dict(points_of(s)) for s in series
                    if (s["case"], s["name"], s["peer"]) == (case, name, peer)]
            if not runs:
                continue
            shares = sorted(x for x in runs[0] if x < 1 and all(x in run for run in runs))
            times = [statistics.median(run[x] for run in runs) for x in shares]
            colour = COLOURS.get(peer)
            axis.plot([1 / (1 - x) for x in shares], times, label=peer, color=colour, linewidth=1.2)
            if shares:
                longest = statistics.median(run[1] for run in runs)
                axis.plot([1 / (1 - shares[-1])], [longest], "x", markersize=4, color=colour)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "%g %%" % (100 - 100 / x)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_title("%s: %s, µs (x: longest)" % (case, name), fontsize=8)
        axis.legend(fontsize=7)
    return svg_of(figure)


def pause_bins(series, per_decade=5):
    """Pauses of all runs and cases, by length in microseconds; the key is the bin's number."""
    bins = {}
    for one in series:
        for length, count in points_of(one):
            number = math.floor(math.log10(max(length, 0.1)) * per_decade)
            bins[number] = bins.get(number, 0) + count
    return bins


def plot_pauses(series, order):
    peers = [p for p in order if any(s["peer"] == p and s["points"] for s in series)]
    if not peers:
        return ""
    figure, axes = panels(len(peers), 2, 5, 2.4)
    all_bins = pause_bins(series)
    low, high = min(all_bins) / 5, (max(all_bins) + 1) / 5
    for axis, peer in zip(axes, peers):
        kinds = list(dict.fromkeys(s["name"].split(":")[1] for s in series
                                   if s["peer"] == peer and s["points"]))
        for index, kind in enumerate(kinds):
            bins = pause_bins([s for s in series if s["peer"] == peer and s["name"] == "pause:" + kind])
            share = 0.2 / len(kinds)  # of a decade: kinds stand beside each other
            lefts = [10 ** (number / 5 + index * share) for number in bins]
            widths = [left * (10 ** share - 1) for left in lefts]
            axis.bar(lefts, list(bins.values()), widths, align="edge", color=KINDS.get(kind), label=kind)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(10 ** low, 10 ** high)
        axis.set_ylim(bottom=0.5)  # one pause is a bar too
        axis.set_title("%s: pauses by length, µs" % peer, fontsize=8)
        axis.legend(fontsize=7)
    return svg_of(figure)


# ---- heaps -------------------------------------------------------------------------------------------------

def thin(points):
    return points[::math.ceil(len(points) / MOST_POINTS)]


def plot_heaps(traces):
    """A cycle's line says when it began, how long its parts took, the heap at begin, at end, and what of it
    was marked, and the goal: the heap climbs to the cycle's end, where what was marked is known."""
    traces = [t for t in traces if len(t["cycles"]) > 1][:MOST_PANELS]
    if not traces:
        return ""
    figure, axes = panels(len(traces), 3, 3.6, 2)
    for axis, trace in zip(axes, traces):
        heap, goal, marked = [], [], []
        for start, arm, mark, finish, at_start, at_end, live, aim in thin(trace["cycles"]):
            end = start + (arm + mark + finish) / 1e3
            heap += [(start, at_start), (end, at_end)]
            goal.append((end, aim))
            marked.append((end, live))
        axis.plot(*zip(*heap), color="#333333", linewidth=0.8, label="heap")
        axis.step(*zip(*goal), color="#d62728", linewidth=0.8, where="pre", label="goal")
        axis.plot(*zip(*marked), color="#2ca02c", linewidth=0.8, label="live")
        axis.set_ylim(bottom=0)
        axis.set_title("%s %s: MiB by s" % (trace["peer"], trace["case"]), fontsize=7)
    axes[0].legend(fontsize=7)
    return svg_of(figure)


# ---- the page ----------------------------------------------------------------------------------------------

def table_of(rows):
    out = ["<table><tr><th>metric</th><th>peer</th><th>median</th><th>/ grey</th><th>lowest .. highest</th>"
           "<th>cpu s</th><th>peak MiB</th></tr>"]
    case = None
    for row in rows:
        if row.case != case:
            case = row.case
            out.append('<tr class="case"><td colspan="7">%s</td></tr>' % html.escape(case))
        grey = row.median("grey") if "grey" in row.peers else 0
        for index, peer in enumerate(row.peers):
            values, value = row.values(peer), row.median(peer)
            name = "%s, %s%s" % (row.metric, row.unit, " (+)" if row.higher else "")
            out.append('<tr><td>%s</td><td class="left">%s</td><td>%.4g</td><td>%s</td><td>%.4g .. %.4g</td>'
                       "<td>%.3g</td><td>%.1f</td></tr>" % (
                           html.escape(name) if index == 0 else "", peer, value,
                           "%.2f" % (value / grey) if grey else "-", min(values), max(values),
                           row.median(peer, "cpu_s"), row.median(peer, "rss_mib")))
    return "\n".join(out + ["</table>"])


def section(workload, rows, data):
    def mine(what):
        return [one for one in data[what] if one["workload"] == workload]

    percentiles = [s for s in mine("series") if not s["name"].startswith("pause:")]
    pauses = [s for s in mine("series") if s["name"].startswith("pause:")]
    parts = ["<h2>%s</h2>" % html.escape(workload), plot_bars(rows)]
    if percentiles:
        parts += ["<h3>Latency</h3>", plot_percentiles(percentiles, data["peers"])]
    histogram, heaps = plot_pauses(pauses, data["peers"]), plot_heaps(mine("traces"))
    if histogram:
        parts += ["<h3>Pauses by kind, all cases and runs together</h3>", histogram]
    if heaps:
        parts += ["<h3>Heap and goal over time, one run of each</h3>", heaps]
    parts.append("<details open><summary>All figures</summary>%s</details>" % table_of(rows))
    return "\n".join(parts)


def page(data):
    rows = [Row(row, data["peers"]) for row in data["rows"]]
    workloads = list(dict.fromkeys(row.workload for row in rows))
    quick = "<p><b>Run with --quick: the figures mean nothing.</b></p>" if data["quick"] else ""
    head = ("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Grey: benchmarks</title>"
            "<style>%s</style></head><body><h1>Grey: benchmarks</h1>" % STYLE)
    about = ("<p class=\"note\"><code>%s</code><br>%s<br>%s<br>Medians of %d run%s, peers taking turns. "
             "Less is better, but where (+) says more is. What each workload does: bench/README.md.</p>" % (
                 html.escape(data["command"]), html.escape(data["machine"]), html.escape(data["date"]),
                 data["runs"], "" if data["runs"] == 1 else "s"))
    body = [section(w, [row for row in rows if row.workload == w], data) for w in workloads]
    return "\n".join([head, about, quick] + body + ["</body></html>\n"])


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: report.py DATA.json OUT.html")
    with open(sys.argv[1]) as file:
        data = json.load(file)
    with open(sys.argv[2], "w") as file:
        file.write(page(data))


if __name__ == "__main__":
    main()
