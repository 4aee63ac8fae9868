"""Ray job: `ray job submit --working-dir . -- python jobs/predict.py BUNDLE "text"`."""

import sys

from sentray.cli import main

main(["predict", *sys.argv[1:]])
