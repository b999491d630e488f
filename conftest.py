"""How pytest runs the course: quiet kernels, and a list of the slowest notebooks at the end."""

import os
from collections import defaultdict

os.environ["COURSE_QUIET"] = "1"        # before any kernel starts: no progress bars in outputs
os.environ.setdefault("OMP_NUM_THREADS", "1")       # two threads on a busy machine make some notebooks many times slower
os.environ.setdefault("MKL_NUM_THREADS", "1")
if os.environ.get("COURSE_DATA"):                   # kernels run in notebooks/: a relative folder means the one given here
    os.environ["COURSE_DATA"] = os.path.abspath(os.environ["COURSE_DATA"])


def pytest_terminal_summary(terminalreporter):
    seconds = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if ".ipynb" in getattr(report, "nodeid", ""):
                seconds[report.nodeid.split("::")[0]] += getattr(report, "duration", 0)
    if seconds:
        terminalreporter.section("slowest notebooks")
        for name, total in sorted(seconds.items(), key=lambda pair: -pair[1])[:10]:
            terminalreporter.line(f"{total:6.1f} s  {name}")
