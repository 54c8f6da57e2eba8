"""Draws panels of the dashboard: reads {begin, end, images: [{file, panels: [{title, unit, stacked, lines}]}]}."""

import json
import os
import sys

os.environ["MPLCONFIGDIR"] = "/tmp"

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

UNITS = {"cpm": "a minute", "cps": "a second", "s": "seconds", "short": "", "Bps": "bytes a second"}

run = json.load(sys.stdin)
pyplot.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
for image in run["images"]:
    panels = image["panels"]
    figure, places = pyplot.subplots(len(panels), sharex=True, figsize=(9, 2.2 * len(panels)))
    for panel, axes in zip(panels, places):
        lines = [line for line in panel["lines"] if any(value for _, value in line["values"])]
        axes.set_title(panel["title"], loc="left", fontweight="bold", fontsize=10)
        axes.set_ylabel(UNITS[panel["unit"]])
        axes.grid(alpha=0.3)
        if panel["stacked"]:
            base = {}
            for line in lines:
                times = [time for time, _ in line["values"]]
                values = [value for _, value in line["values"]]
                bottom = [base.get(time, 0) for time in times]
                width = min((b - a for a, b in zip(times, times[1:])), default=5)
                axes.bar([time - run["begin"] for time in times], values, width, bottom, label=line["name"])
                base.update((time, below + value) for time, below, value in zip(times, bottom, values))
        else:
            for line in lines:
                times = [time - run["begin"] for time, _ in line["values"]]
                axes.plot(times, [value for _, value in line["values"]], label=line["name"])
            axes.set_ylim(bottom=0)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    places[-1].set_xlabel("seconds")
    places[-1].set_xlim(0, run["end"] - run["begin"])
    figure.savefig(f"/tmp/{image['file']}", dpi=100, bbox_inches="tight")
