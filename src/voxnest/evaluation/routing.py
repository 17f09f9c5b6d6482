"""Two models as one: a fast one decides the pairs that it is sure of, an accurate one the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from voxnest.corpora.trials import Trial
from voxnest.errors import CheckpointError, ConfigError
from voxnest.evaluation.metrics import compute_eer
from voxnest.evaluation.trial_sets import TrialSet, embed_trials, find_trials
from voxnest.files import atomic_write, writing
from voxnest.inference.cache import EmbeddingCache
from voxnest.inference.embedding import Progress, embed_files
from voxnest.runtimes.loading import load_encoder
from voxnest.scoring import cosine_similarity, fit_calibration
from voxnest.scoring.arrays import Floats
from voxnest.scoring.calibration import SCORE
from voxnest.scoring.logistic import LinearLLR

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Of pairs that go on to the accurate model, for which `Routing.table` tells error rates."""
_STEPS = 1000  # in which the share for a wanted error rate is looked for
_NAMES = ("fast", "accurate")
_EXPECTED = "what Router.save writes"


class Rate(NamedTuple):
    """The equal error rate if a share of the pairs goes on."""

    share: float
    eer: float


@dataclass(frozen=True)
class Routing:
    """Who decides what, learnt from a list of trials.

    Attributes:
        fast: what cosines of the fast model mean as log-likelihood ratios.
        accurate: those of the accurate one.
        margin: pairs whose ratio by the fast model is nearer to zero than this go on.
        share: of the list that did.
        eer: of the list, when routed so.
        table: for other shares: from none, the fast model alone, to all, the accurate one alone.
    """

    fast: LinearLLR
    accurate: LinearLLR
    margin: float
    share: float
    eer: float
    table: tuple[Rate, ...]


@dataclass(frozen=True)
class Routed:
    """The answer to one pair.

    Attributes:
        same: one speaker, if that was as likely as not before.
        llr: log-likelihood ratio (natural) by the model that decided.
        model: which that was.
        score: its cosine similarity.
    """

    same: bool
    llr: float
    model: Literal["fast", "accurate"]
    score: float


class Router:
    """Verifies pairs of recordings by two models.

    Args:
        models: {"fast": ..., "accurate": ...}, each an embedder; see `load_router` for names of models.
        routing: what `fit` found before.

    Attributes:
        routing: who decides what; None before `fit`.
        decided: how many pairs each model has decided.
    """

    def __init__(self, models: Mapping[str, Embedder], routing: Routing | None = None) -> None:
        if set(models) != set(_NAMES):
            raise ConfigError("models", ", ".join(sorted(models)) or "none", " and ".join(_NAMES))
        self.models, self.routing = dict(models), routing
        self.decided = dict.fromkeys(_NAMES, 0)

    def fit(
        self,
        trials: str | Path | Sequence[Trial] | TrialSet,
        root: str | Path | None = None,
        *,
        eer: float | None = None,
        share: float | None = None,
        cache: bool = True,
        progress: Progress | None = None,
    ) -> Routing:
        """Learn which pairs go on, from trials of speakers who are in no test.

        Args:
            trials: a list, trials, or what `find_trials` gave.
            root: the folder that the trials' relative paths start from; see `find_trials`.
            eer: the equal error rate that is wanted: as few pairs as possible go on.
            share: or, how many of the pairs go on, 0 to 1.
            cache: keep embeddings, and take those that are kept.
            progress: called with how many recordings are embedded, and of how many.

        Raises:
            ConfigError: neither or both of `eer` and `share`, or a rate that no share reaches (it tells the least).
            TrialError: as of `find_trials`.
            AudioError: a recording that cannot be used.
        """
        if (eer is None) == (share is None):
            raise ConfigError("routing", "both eer and share" if share is not None else "no eer and no share", "one")
        for name, value in (("eer", eer), ("share", share)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(name, f"{value:g}", "0 to 1")
        found = trials if isinstance(trials, TrialSet) else find_trials(trials, root)
        labels, llrs, fitted = found.pairs.labels, {}, {}
        for name in _NAMES:
            model = self.models[name]
            kept = EmbeddingCache(model) if cache else None
            embedded = embed_trials(model, found, cache=kept, progress=progress)
            scores = embedded.score((model.embedding_dim,))[model.embedding_dim]
            fitted[name] = fit_calibration(scores, labels)
            llrs[name] = fitted[name]({SCORE: scores})

        def route(part: float) -> tuple[float, Rate]:
            margin = _margin(llrs["fast"], part)
            onward = np.abs(llrs["fast"]) < margin
            routed = np.where(onward, llrs["accurate"], llrs["fast"])
            return margin, Rate(float(onward.mean()), compute_eer(routed, labels)[0])

        if share is None:
            assert eer is not None
            share = _least_share(lambda part: route(part)[1].eer, eer)
        margin, rate = route(share)
        table = tuple(route(part)[1] for part in SHARES)
        self.routing = Routing(fitted["fast"], fitted["accurate"], margin, *rate, table)
        return self.routing

    def verify(self, a: str | Path, b: str | Path) -> Routed:
        """Tell whether two recordings are of one speaker.

        Raises:
            ConfigError: nothing was fitted yet.
            AudioError: a recording cannot be used.
        """
        if self.routing is None:
            raise ConfigError("router", "nothing that says which pairs go on", "Router.fit, or a router that was saved")
        score, llr = self._compare("fast", self.routing.fast, a, b)
        model: Literal["fast", "accurate"] = "fast"
        if abs(llr) < self.routing.margin:
            score, llr = self._compare("accurate", self.routing.accurate, a, b)
            model = "accurate"
        self.decided[model] += 1
        return Routed(llr >= 0, llr, model, score)

    def _compare(self, name: str, meaning: LinearLLR, a: str | Path, b: str | Path) -> tuple[float, float]:
        found = embed_files(self.models[name], [a, b])
        score = cosine_similarity(found[str(a)], found[str(b)])
        return score, float(meaning({SCORE: [score]})[0])

    def save(self, path: str | Path) -> None:
        """Write names and digests of the models, and who decides what, as JSON, for `load_router`.

        Raises:
            ConfigError: nothing was fitted yet.
            VoxnestError: it cannot be written.
        """
        if self.routing is None:
            raise ConfigError("router", "nothing to save", "Router.fit first")
        content = {"digests": {name: model.digest() for name, model in self.models.items()}, **asdict(self.routing)}
        with writing(path), atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_router(
    models: Mapping[str, str | Path | Embedder], routing: str | Path | None = None, *, device: str = "cpu"
) -> Router:
    """Two models as one.

    Args:
        models: {"fast": ..., "accurate": ...}: models as of `load_encoder` ("MODEL@2" is a fast part of MODEL), or
            embedders.
        routing: a file of `Router.save`, of these models.
        device: where models that are named here go.

    Raises:
        CheckpointError: a model or the file cannot be read.
        ConfigError: other names than these two, or a file about other models.

    Examples:
        >>> router = load_router({"fast": "default", "accurate": "redimnet-b6"})
        >>> router.fit("dev-trials.txt", eer=0.01).share  # 4% of pairs go on
        0.04
        >>> router.verify("a.wav", "b.wav").model
        'fast'
    """
    loaded: dict[str, Any] = {
        name: load_encoder(model, device=device) if isinstance(model, str | Path) else model
        for name, model in models.items()
    }
    router = Router(loaded)
    if routing is not None:
        router.routing = _read(routing, router)
    return router


def _margin(llrs: Floats, share: float) -> float:
    """How near to zero the ratios of that share of pairs are."""
    ordered = np.sort(np.abs(llrs))
    count = round(share * len(ordered))
    return float("inf") if count == len(ordered) else float(ordered[count])


def _least_share(rate: Any, wanted: float) -> float:
    found = [(rate(step / _STEPS), step / _STEPS) for step in range(0, _STEPS + 1, _STEPS // 20)]
    least = min(found)
    if least[0] > wanted:
        raise ConfigError("eer", f"{wanted:g}", f"{least[0]:.4g} or more, which {least[1]:.0%} of pairs going on give")
    coarse = next(share for value, share in found if value <= wanted)
    below = max(0, round(coarse * _STEPS) - _STEPS // 20)
    return next(step / _STEPS for step in range(below, _STEPS + 1) if rate(step / _STEPS) <= wanted)


def _read(path: str | Path, router: Router) -> Routing:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        digests = dict(content.pop("digests"))
        table = tuple(Rate(float(share), float(eer)) for share, eer in content.pop("table"))
        margin, share, eer = (float(content[name]) for name in ("margin", "share", "eer"))
        fast, accurate = (LinearLLR.from_dict(content[name]) for name in _NAMES)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}", _EXPECTED) from error
    except (AttributeError, CheckpointError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(path, "no routing between two models", _EXPECTED) from error
    for name, model in router.models.items():
        if digests.get(name) != model.digest():
            raise ConfigError(path, f"routing by another {name} model than {model.name}", "the models it was made for")
    return Routing(fast, accurate, margin, share, eer, table)
