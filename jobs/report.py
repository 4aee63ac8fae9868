"""Ray job: `ray job submit --working-dir . -- python jobs/report.py BUNDLE CORPUS --out REPORT`."""

import sys

from sentray.cli import main

main(["report", *sys.argv[1:]])
