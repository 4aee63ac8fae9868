"""Ray job: `ray job submit --working-dir . -- python jobs/explain.py BUNDLE "text"`."""

import sys

from sentray.cli import main

main(["explain", *sys.argv[1:]])
