"""Ray job: `ray job submit --working-dir . -- python jobs/train.py CORPUS --out BUNDLE`."""

import sys

from sentray.cli import main

main(["train", *sys.argv[1:]])
