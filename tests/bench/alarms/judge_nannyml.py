"""NannyML's univariate drift and missing values with their defaults, inputs and the model's probability; a column's alert is an alarm."""

import os
import warnings
from collections.abc import Iterator

import pyarrow as pa
from rows import Stream, Verdict, answer, each_alone, frame

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
warnings.filterwarnings("ignore")
import nannyml  # noqa: E402


def judge(stream: Stream) -> Iterator[Verdict]:
    names, size = list(stream.learnt.columns), len(stream.calm[0])
    texts = [n for n in names if stream.learnt[n].dtype.kind not in "if"]
    every = [
        nannyml.UnivariateDriftCalculator(column_names=names, treat_as_categorical=texts, chunk_size=size),
        nannyml.MissingValuesCalculator(column_names=names, chunk_size=size),
    ]
    for one in every:
        one.fit(stream.learnt)

    def alarm(_: int, log: pa.Table) -> dict[str, bool]:
        rows = frame(log, stream.learnt)
        found = [one.calculate(rows).filter(period="analysis").to_df() for one in every]
        return {"NannyML, any column": any(bool(f[c].any()) for f in found for c in f.columns if c[-1] == "alert")}

    return each_alone(stream, alarm)


if __name__ == "__main__":
    answer(judge)
