"""The alarms of a version that held each window against the training rows alone (6ea964e)."""

import os
from collections.abc import Iterator

import pyarrow as pa
from rows import Stream, Verdict, answer, each_alone, span

from mlops_nb.core.charter import Monitoring
from mlops_nb.stages.monitor import Window, look, make_reference


def judge(stream: Stream) -> Iterator[Verdict]:
    reference = make_reference(1, stream.facts, stream.learnt.drop(columns="probability"))
    if os.environ["CLASSIFIER"] == "0":
        reference = reference._replace(some=reference.some[:19])  # too few for it
    rules = Monitoring(window=stream.window)

    def one(t: int, log: pa.Table) -> dict[str, bool]:
        window = Window("shop", *span(stream, t), len(log), log.drop(["subject"]), [])
        return {"before": bool(look(window, {1: reference}, rules).every_alarm)}

    return each_alone(stream, one)


if __name__ == "__main__":
    answer(judge)
