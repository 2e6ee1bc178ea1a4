"""MLServer: a runtime of its own for a skops file; requests and answers by the Open Inference Protocol, frames by its pandas codec."""

import peer_model
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Income(MLModel):
    async def load(self) -> bool:
        self._model = peer_model.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        frame = self.decode_request(payload, default_codec=PandasCodec)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("predict_proba", self._model.predict_proba(frame))])
