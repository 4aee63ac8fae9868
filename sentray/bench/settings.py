"""Settings of what is measured: the benches, and the tutorials' systems made again."""

from typing import Annotated

from pydantic import Field

from sentray.config import ClusterSettings, LogSettings, Several


class BenchSettings(LogSettings):
    """What every bench has."""

    json_file: str | None = Field(default=None, alias="json", description="file to write the figures to")


class BenchTrainSettings(BenchSettings):
    """Compare training with the tutorial's plain Keras script, and two workers with one."""

    corpus: str | None = Field(
        default=None, description="labelled reviews; nltk:movie_reviews, or synthetic:2000 where it cannot be had"
    )
    epochs: Annotated[int, Field(ge=2)] = Field(default=8, description="passes over the training reviews of each run")
    seed: Annotated[int, Field(ge=0)] = Field(default=1, description="fixes first weights and order of reviews")


class BenchScoreSettings(BenchSettings):
    """Compare scoring with the tutorial's path, scikit-learn, fastText and Vowpal Wabbit, and two workers with one."""

    rows: Annotated[int, Field(ge=1000)] = Field(default=100_000, description="reviews to score through Ray")
    bundle: str | None = Field(
        default=None, description="bundle to score with; a model trained for the occasion where not given"
    )
    reviews: str | None = Field(
        default=None,
        description="reviews to score, as for score; texts of the polarity corpus's length where not given",
    )
    memory_rows: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="largest number of reviews of a run of its own that shows the memory curve; 0: no such runs",
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="fixes the texts and the model")


class BenchVectorsSettings(BenchSettings):
    """Compare the reader of word-vector files with gensim's loader: time and memory."""

    rows: Annotated[int, Field(ge=1000)] = Field(default=400_000, description="words of the file")
    dimensions: Annotated[int, Field(ge=1)] = Field(default=100, description="numbers of a word's vector")
    words: Annotated[int, Field(ge=1)] = Field(default=25_767, description="words to keep of them when filtering")
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="fixes words and vectors")


class BenchDriverSettings(BenchSettings):
    """Measure how many shards a second a scoring job's driver commits when its workers return at once."""

    shards: Annotated[int, Field(ge=100)] = Field(default=5000, description="shards to commit on a local disk")
    remote_shards: Annotated[int, Field(ge=0)] = Field(
        default=1000, description="the same on a loopback S3 server (needs moto); 0 for none"
    )
    memory_shards: Annotated[int, Field(ge=0)] = Field(
        default=1_000_000, description="shards of a plan whose memory is measured; 0 for none"
    )


class ReproduceSettings(ClusterSettings):
    """Train every system of the two tutorials and put the tutorials' figures beside ours."""

    out: str = Field(default="runs/reproduce", description="folder for the table, the picture and every run")
    seeds: Annotated[int, Field(ge=1)] = Field(default=1, description="seeds to train each system with, from 0")
    only: Several = Field(default=(), description="name of a system; may be repeated; all where not given")
    glove: str | None = Field(
        default=None, description="file of GloVe vectors of 100 dimensions; its systems are left out where not given"
    )
