"""Two models as one: the fast one decides what it is sure of; as few pairs as possible go on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tones import ToneEncoder, make_corpus
from voxnest.errors import CheckpointError, ConfigError
from voxnest.evaluation import evaluate
from voxnest.evaluation.routing import SHARES, Router, load_router


class Deaf(ToneEncoder):
    """Hears through noise, the same for a recording each time."""

    name = "deaf"

    def forward(self, waveform, dim=None, all_dims=False):
        found = super().forward(waveform, dim, all_dims)
        seed = int(waveform.abs().sum() * 1e3) % 2**31
        return found + 1.2 * found.std() * torch.randn(found.shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture
def router() -> Router:
    return load_router({"fast": Deaf().eval(), "accurate": ToneEncoder().eval()})


def test_no_pair_and_every_pair_going_on_are_the_models_alone(router: Router, corpus: Path) -> None:
    routing = router.fit(corpus / "trials.txt", share=0.2, cache=False)
    alone = {name: evaluate(model, corpus / "trials.txt").dims[16].eer for name, model in router.models.items()}
    assert [rate.share for rate in routing.table] == pytest.approx(SHARES, abs=0.005)
    assert routing.table[0].eer == pytest.approx(alone["fast"])
    assert routing.table[-1].eer == pytest.approx(alone["accurate"])
    assert routing.share == pytest.approx(0.2, abs=0.005)
    assert alone["accurate"] <= routing.eer < alone["fast"]


def test_as_few_pairs_as_possible_go_on_for_a_wanted_error_rate(router: Router, corpus: Path) -> None:
    ends = [rate.eer for rate in router.fit(corpus / "trials.txt", share=0.0, cache=False).table]
    wanted = (ends[0] + ends[-1]) / 2
    routing = router.fit(corpus / "trials.txt", eer=wanted, cache=False)
    assert routing.eer <= wanted
    assert 0 < routing.share < 1
    fewer = router.fit(corpus / "trials.txt", share=routing.share - 0.01, cache=False)
    assert fewer.eer > wanted
    assert router.fit(corpus / "trials.txt", eer=0.9, cache=False).share == 0
    if min(ends) > 0:
        with pytest.raises(ConfigError, match="or more, which"):
            router.fit(corpus / "trials.txt", eer=0.0, cache=False)


def test_pairs_are_decided_by_the_model_that_the_routing_says(router: Router, corpus: Path, tmp_path: Path) -> None:
    routing = router.fit(corpus / "trials.txt", share=0.3, cache=False)
    accurate: ToneEncoder = router.models["accurate"]  # type: ignore[assignment]
    accurate.heard.clear()
    pairs = [(corpus / "s0" / f"{a}.wav", corpus / f"s{b}" / "2.wav") for a in (0, 1) for b in range(8)]
    answers = [router.verify(*pair) for pair in pairs]
    onward = [answer for answer in answers if answer.model == "accurate"]
    assert 0 < len(onward) < len(answers)
    assert len(accurate.heard) == 2 * len(onward)
    assert router.decided == {"fast": len(answers) - len(onward), "accurate": len(onward)}
    assert all(abs(answer.llr) >= routing.margin for answer in answers if answer.model == "fast")
    assert all(answer.same == (answer.llr >= 0) for answer in answers)
    router.save(tmp_path / "router.json")
    again = load_router(router.models, tmp_path / "router.json")
    assert again.routing == routing
    assert again.verify(*pairs[0]) == answers[0]


def test_what_does_not_fit_is_refused(router: Router, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fast and accurate"):
        load_router({"fast": Deaf()})
    with pytest.raises(ConfigError, match="no eer and no share"):
        router.fit(corpus / "trials.txt")
    with pytest.raises(ConfigError, match="share: 2"):
        router.fit(corpus / "trials.txt", share=2)
    for use in (lambda: router.verify("a", "b"), lambda: router.save(tmp_path / "x")):
        with pytest.raises(ConfigError, match=r"Router\.fit"):
            use()
    router.fit(corpus / "trials.txt", share=0.1, cache=False)
    router.save(tmp_path / "router.json")
    swapped = {"fast": router.models["accurate"], "accurate": router.models["fast"]}
    swapped["fast"].scale.data += np.float32(1)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="another fast model"):
        load_router(swapped, tmp_path / "router.json")
    for text in ("{}", "no json", json.dumps([1])):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(CheckpointError, match="no routing"):
            load_router(router.models, tmp_path / "bad.json")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_router(router.models, tmp_path / "none.json")
