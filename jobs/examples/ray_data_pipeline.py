"""A pipeline that is Ray Data already: map `sentray.Predictor` over a dataset, and write it by Ray's own sinks.

    python jobs/examples/ray_data_pipeline.py models/stars 'reviews/*.parquet' out --text-column body --sink delta

Nothing here is written exactly once: a run that is killed leaves what its sink leaves. Parquet and Delta Lake
(`pip install deltalake`) are shown; Ray has more.
"""

import argparse

import ray

import sentray

parser = argparse.ArgumentParser(description="Score a Ray Dataset and write it by a sink of Ray's.")
parser.add_argument("bundle", help="folder or URI that every node sees")
parser.add_argument("input", help="Parquet: a path, folder or glob")
parser.add_argument("out", help="folder or URI of the table")
parser.add_argument("--text-column", default="text", help="column that holds the review (default text)")
parser.add_argument("--sink", choices=("parquet", "delta"), default="parquet", help="(default parquet)")
parser.add_argument("--concurrency", type=int, default=1, help="actors that score, with a CPU each (default 1)")
given = parser.parse_args()

scored = ray.data.read_parquet(given.input).map_batches(
    sentray.Predictor,
    fn_constructor_kwargs={"model": given.bundle, "text_column": given.text_column},
    batch_format="pyarrow",
    concurrency=given.concurrency,
)
if given.sink == "parquet":
    # Its default would append to what is there already.
    scored.write_parquet(given.out, mode="error")
else:
    # Ray's sink for Delta Lake can append and overwrite, and no more.
    scored.write_delta(given.out, mode="append")
print(f"{given.out} is written")
