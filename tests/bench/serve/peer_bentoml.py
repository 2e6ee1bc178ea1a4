"""BentoML: a service with one worker."""

import bentoml
import pandas as pd
import peer_model


@bentoml.service(workers=1)
class Income:
    def __init__(self) -> None:
        self.model = peer_model.load()

    @bentoml.api
    def predict(self, rows: list[dict]) -> list[list[float]]:
        return self.model.predict_proba(pd.DataFrame(rows)).tolist()
