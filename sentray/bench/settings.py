"""Settings of what is measured: the benches, and the tutorials' systems made again."""

from sentray.config import ClusterSettings, LogSettings, Several, setting


class BenchSettings(LogSettings):
    """What every bench has."""

    json_file: str | None = setting("file to write the figures to", None, alias="json")


class BenchTrainSettings(BenchSettings):
    """Compare training with a plain Keras script of the same network and fastText, and two workers with one."""

    corpus: str | None = setting("labelled reviews; nltk:movie_reviews, or synthetic:2000 where it cannot be had", None)
    model: str = setting("network to train, such as kim-cnn, bilstm and package.module:function", "tutorial-cnn")
    max_length: int | None = setting("words of a review that are used; all where not given", None, ge=1)
    epochs: int = setting("passes over the training reviews of each run", 8, ge=2)
    sentences: int = setting("sentences of 20 words to train on beside fastText; 0 for none", 1_000_000, ge=0)
    seed: int = setting("fixes first weights and order of reviews", 1, ge=0)


class BenchScoreSettings(BenchSettings):
    """Compare scoring with the tutorial's path, scikit-learn, fastText and others, and two workers with one."""

    rows: int = setting("reviews to score through Ray", 100_000, ge=1000)
    sentences: int = setting("texts of one sentence to score through Ray", 2_000_000, ge=1000)
    bundle: str | None = setting(
        "bundle to score with; the tutorial's network and wide-deep, trained for the occasion, where not given", None
    )
    reviews: str | None = setting(
        "reviews to score, as for score; texts of the polarity corpus's length, and sentences, where not given", None
    )
    memory_rows: int = setting(
        "largest number of reviews of a run of its own that shows the memory curve; 0: no such runs", 0, ge=0
    )
    seed: int = setting("fixes the texts and the model", 0, ge=0)


class BenchVectorsSettings(BenchSettings):
    """Compare the reader of word-vector files with gensim's loader: time and memory."""

    rows: int = setting("words of the file", 400_000, ge=1000)
    dimensions: int = setting("numbers of a word's vector", 100, ge=1)
    words: int = setting("words to keep of them when filtering", 25_767, ge=1)
    seed: int = setting("fixes words and vectors", 0, ge=0)


class BenchDriverSettings(BenchSettings):
    """Measure how many shards a second a scoring job's driver commits when its workers return at once."""

    shards: int = setting("shards to commit on a local disk", 5000, ge=100)
    remote_shards: int = setting("the same on a loopback S3 server (needs moto); 0 for none", 1000, ge=0)
    memory_shards: int = setting("shards of a plan whose memory is measured; 0 for none", 1_000_000, ge=0)


class BenchGramsSettings(BenchSettings):
    """Measure how n-grams of many reviews are counted and looked up: time and memory."""

    reviews: int = setting("reviews to draw", 10_000_000, ge=1000)
    words: int = setting("words of each", 20, ge=3)
    max_grams: int = setting("most n-grams to keep", 2_000_000, ge=1)
    seed: int = setting("fixes the reviews", 0, ge=0)


class ReproduceSettings(ClusterSettings):
    """Train every system of the two tutorials and put the tutorials' figures beside ours.

    With --benchmarks compare sentray's default with the tutorial's network, NB-SVM and fastText on public test sets.
    """

    out: str = setting("folder for the table, the picture and every run", "runs/reproduce")
    seeds: int = setting("seeds to train each system with, from 0", 1, ge=1)
    only: Several = setting("name of a system or of a benchmark; may be repeated; all where not given", ())
    glove: str | None = setting(
        "file of GloVe vectors of 100 dimensions; its systems are left out where not given", None
    )
    benchmarks: str | None = setting(
        "folder with imdb_train.parquet and sentences/*.parquet, for the comparison instead of the tutorials", None
    )
    max_folds: int | None = setting("folds of each benchmark, the first ones; all where not given", None, ge=2)
    at_once: int | None = setting(
        "trainings of the comparison at the same time; as many as there are CPUs for where not given", None, ge=1
    )
