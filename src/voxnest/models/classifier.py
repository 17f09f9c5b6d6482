"""The classifier that training ends in, kept to name speakers: embedding to a logit for each of them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError


class SpeakerClassifier(nn.Module):
    """A closed set of speakers: `embedding [batch, dim]`, whole or a prefix, to `logits [batch, speakers]`.

    Args:
        speakers: their names, in the order of the logits.
        weight: `[speakers * centers, embedding_dim]`; of several centers of a speaker the nearest counts.
        bias: `[speakers]`, for a linear classifier; None for one of cosines.
        scale: of cosines; the logits of a linear classifier are what they are.

    Raises:
        ConfigError: weights that are not those of so many speakers.
    """

    def __init__(
        self, speakers: Sequence[str], weight: Tensor, bias: Tensor | None = None, *, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.speakers, self.scale = tuple(speakers), scale
        rows, names = len(weight), len(self.speakers)
        fits = weight.ndim == 2 and names and rows and rows % names == 0
        if not fits or (bias is not None and (bias.shape != (names,) or rows != names)):
            raise ConfigError("classifier", f"weights {list(weight.shape)} for {names} speakers", "a row for each")
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.weight: Tensor
        self.bias: Tensor | None

    def forward(self, embedding: Tensor) -> Tensor:
        """`[batch, dim]` to `[batch, speakers]`, in float32."""
        weight = self.weight[:, : embedding.shape[1]]
        with torch.autocast(embedding.device.type, enabled=False):
            if self.bias is not None:
                return F.linear(embedding.float(), weight, self.bias)
            cosines = F.linear(F.normalize(embedding.float()), F.normalize(weight))
            return self.scale * cosines.unflatten(1, (len(self.speakers), -1)).amax(dim=2)
