"""What is embedded is the voice, not how loud it was recorded; published weights hear what they were trained on."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from voxnest import create_encoder, load_encoder, save_encoder
from voxnest.audio import read_audio
from voxnest.errors import ConfigError
from voxnest.frontends import FRONTENDS, ReDimNetMel, create_frontend
from voxnest.frontends.base import at_level
from voxnest.zoo.cards import CARDS
from voxnest.zoo.registry import LEVEL

GAINS = (12.0, -20.0, -40.0, -60.0)
FAMILIES = list({card.family: name for name, card in reversed(CARDS.items())}.values())


@pytest.fixture
def excerpt(speech: Path) -> Tensor:
    return torch.from_numpy(read_audio(speech).samples[16000:48000])[None]


def rms_db(waveform: Tensor) -> float:
    return 10 * torch.log10(waveform.double().square().mean()).item()


def test_the_default_model_embeds_a_recording_at_any_level_alike(excerpt: Tensor) -> None:
    encoder = load_encoder()
    assert encoder.config["level"] == LEVEL
    with torch.inference_mode():
        embedding = encoder(excerpt)
        for gain in GAINS:
            assert F.cosine_similarity(embedding, encoder(excerpt * 10 ** (gain / 20))).item() > 0.9999


@pytest.mark.parametrize("name", FRONTENDS)
def test_every_front_end_can_be_made_independent_of_level(name: str, excerpt: Tensor) -> None:
    frontend = create_frontend(name, 128 if name == "tf_spectrogram" else 40, level=-25.0)
    features = frontend(excerpt)
    for gain in GAINS:
        torch.testing.assert_close(frontend(excerpt * 10 ** (gain / 20)), features, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_new_encoders_of_every_family_hear_one_level(name: str) -> None:
    with torch.device("meta"):
        assert create_encoder(name).frontend.level == LEVEL
        assert create_encoder(name, level=None).frontend.level is None


def test_the_level_is_that_of_the_samples_that_are_not_zero(excerpt: Tensor) -> None:
    assert rms_db(at_level(excerpt, -25.0)) == pytest.approx(-25, abs=0.01)
    padded = F.pad(excerpt, (5000, 40000))
    torch.testing.assert_close(at_level(padded, -25.0), F.pad(at_level(excerpt, -25.0), (5000, 40000)))


def test_an_item_s_level_does_not_depend_on_the_others(excerpt: Tensor) -> None:
    batch = torch.cat([excerpt, 1e-3 * excerpt.flip(1), torch.zeros_like(excerpt)])
    together = ReDimNetMel(40, level=-25.0)(batch)
    for item, features in zip(batch, together, strict=True):
        torch.testing.assert_close(ReDimNetMel(40, level=-25.0)(item[None])[0], features, atol=1e-4, rtol=0)


def test_silence_appended_by_the_front_end_is_not_measured(excerpt: Tensor) -> None:
    plain, padding = (ReDimNetMel(40, level=-25.0, normalization=None, pad_right=pad) for pad in (0, 32000))
    frames = plain(excerpt).shape[2] - 2  # the last window meets the edge
    torch.testing.assert_close(padding(excerpt)[..., :frames], plain(excerpt)[..., :frames])


@pytest.mark.parametrize("peak", [0.0, 1e-30, 1e-42, 1e30])
def test_no_level_is_too_low_or_too_high(peak: float) -> None:
    waveform = peak * torch.sin(torch.arange(8000.0))[None]
    levelled = at_level(waveform, -25.0)
    assert levelled.isfinite().all()
    assert ReDimNetMel(40, level=-25.0)(waveform).isfinite().all()
    if peak == 0:
        assert not levelled.any()
    else:
        assert rms_db(levelled) == pytest.approx(-25, abs=0.01 if peak > 1e-38 else 1)


def test_the_level_is_found_in_single_precision_under_autocast(excerpt: Tensor) -> None:
    frontend = ReDimNetMel(40, level=-25.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frontend(excerpt * 1e-3), frontend(excerpt * 1e-3).float())
        torch.testing.assert_close(frontend(excerpt), frontend(excerpt * 1e-3), atol=2e-3, rtol=0)


def test_a_levelled_encoder_can_be_exported(excerpt: Tensor) -> None:
    encoder = create_encoder("redimnet-tiny").eval()
    any_size = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    exported = torch.export.export(encoder, (excerpt.expand(2, -1),), dynamic_shapes=(any_size,)).module()
    quiet = torch.cat([excerpt, 0.01 * excerpt, excerpt.flip(1)])[:, :20000]
    with torch.inference_mode():
        torch.testing.assert_close(exported(quiet), encoder(quiet))


def test_a_checkpoint_keeps_its_level_and_one_without_hears_recordings_as_they_are(tmp_path: Path) -> None:
    encoder, path = create_encoder("redimnet-tiny", level=-30.0), tmp_path / "model.safetensors"
    save_encoder(encoder, path)
    assert load_encoder(path).frontend.level == -30.0
    del encoder.config["level"]  # as of files that were written before there were levels
    save_encoder(encoder, path)
    loaded = load_encoder(path)
    assert loaded.frontend.level is None
    save_encoder(loaded, path)
    assert load_encoder(path).frontend.level is None


@pytest.mark.parametrize("level", ["loud", float("nan"), float("inf")])
def test_a_level_that_is_no_number_is_refused(level: object) -> None:
    with pytest.raises(ConfigError, match=r"redimnet-tiny: level: .*number"):
        create_encoder("redimnet-tiny", level=level)  # type: ignore[arg-type]
