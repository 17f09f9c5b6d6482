"""A rotated embedding space gives the same full-size scores, and prefixes that are worth more."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from voxnest import create_encoder, load_encoder, save_encoder
from voxnest.errors import ConfigError
from voxnest.evaluation import compute_eer
from voxnest.matryoshka import discriminative_rotation, learned_rotation, pca_rotation, with_dims
from voxnest.matryoshka.learning import _Pairs
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.head import MatryoshkaProjection


def cosines(embeddings: Tensor) -> Tensor:
    unit = F.normalize(embeddings)
    return unit @ unit.T


def prefix_eer(embeddings: Tensor, speakers: Tensor, dim: int) -> float:
    first, second = np.triu_indices(len(speakers), 1)
    scores = cosines(embeddings[:, :dim]).numpy()[first, second]
    return compute_eer(scores, (speakers[first] == speakers[second]).numpy())[0]


@pytest.fixture(scope="module")
def voices() -> tuple[Tensor, Tensor]:
    """Embeddings whose speakers differ in ten hidden directions of 64, below louder ones that say nothing."""
    random = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    speakers = torch.arange(60).repeat_interleave(8)
    hidden = torch.cat([2.0 * draw(480, 4), draw(60, 10)[speakers] + 0.2 * draw(480, 10), 0.1 * draw(480, 50)], dim=1)
    return hidden @ torch.linalg.qr(draw(64, 64))[0], speakers


def trained_like(dims: tuple[int, ...], **settings: object) -> SpeakerEncoder:
    """An encoder whose batch norms have seen something."""
    torch.manual_seed(0)
    encoder = create_encoder("redimnet-tiny", dims=dims, **settings)
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return encoder.eval()


@pytest.mark.parametrize("kind", ["pca", "discriminative", "learned"])
def test_rotations_are_orthogonal_and_keep_full_scores(kind: str, voices: tuple[Tensor, Tensor]) -> None:
    embeddings, speakers = voices
    rotation = {
        "pca": lambda: pca_rotation(embeddings),
        "discriminative": lambda: discriminative_rotation(embeddings, speakers),
        "learned": lambda: learned_rotation(embeddings, speakers, (4, 16, 64)),
    }[kind]()
    assert torch.allclose(rotation @ rotation.T, torch.eye(64), atol=1e-5)
    assert torch.allclose(cosines(embeddings @ rotation.T), cosines(embeddings), atol=1e-5)


def test_discriminative_prefixes_tell_speakers_apart_where_variance_misleads(voices: tuple[Tensor, Tensor]) -> None:
    embeddings, speakers = voices
    plain = prefix_eer(embeddings, speakers, 10)
    pca = prefix_eer(embeddings @ pca_rotation(embeddings).T, speakers, 10)
    discriminative = prefix_eer(embeddings @ discriminative_rotation(embeddings, speakers).T, speakers, 10)
    assert discriminative < 0.02
    assert discriminative < 0.3 * min(plain, pca)


def test_learned_prefixes_tell_new_speakers_apart_better_than_those_that_are_solved_for() -> None:
    """Directions in which speakers differ reliably are not always those in which they differ much."""
    random = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(96, 96, generator=random))[0]
    sizes = 1 / (1 + torch.arange(96) / 8)
    within = 0.6 * sizes * torch.exp(0.5 * torch.randn(96, generator=random))

    def draw(count: int) -> tuple[Tensor, Tensor]:
        speakers = torch.arange(count).repeat_interleave(4)
        means = sizes * torch.randn(count, 96, generator=random)
        return (means[speakers] + within * torch.randn(4 * count, 96, generator=random)) @ turn, speakers

    (seen, speakers), (new, others) = draw(300), draw(100)
    solved, learned = discriminative_rotation(seen, speakers), learned_rotation(seen, speakers, (8, 64, 96))
    for dim in (8, 64):
        errors = [prefix_eer(new @ turned.T, others, dim) for turned in (learned, solved)]
        assert errors[0] < 0.85 * errors[1]
    misses = [(cosines((new @ turned.T)[:, :8]) - cosines(new)).square().mean() for turned in (learned, solved)]
    assert misses[0] < 0.9 * misses[1]
    assert torch.equal(learned, learned_rotation(seen, speakers, (8, 64, 96)))
    assert torch.equal(learned_rotation(seen, speakers, (80, 96)), solved), "nothing short is asked for"


def test_the_two_embeddings_of_a_speaker_are_of_different_recordings_where_there_are_several() -> None:
    random = torch.Generator().manual_seed(0)
    speakers = torch.randint(0, 40, (500,), generator=random)
    recordings = 100 * speakers + torch.randint(0, 3, (500,), generator=random)
    recordings[speakers == 7] = 700  # one alone, of which any two will do
    pairs, drawn = _Pairs(speakers, recordings, 0), torch.zeros(500)
    for _ in range(500):
        one, other = pairs.draw(40)
        assert len(one) == len(speakers[one].unique()) == 40
        assert torch.equal(speakers[one], speakers[other])
        assert (one != other).all()
        assert (recordings[one] != recordings[other])[speakers[one] != 7].all()
        drawn += torch.bincount(torch.cat([one, other]), minlength=500)
    assert drawn.all()


def test_learned_prefixes_want_two_speakers_with_two_embeddings() -> None:
    with pytest.raises(ConfigError, match="1 with two embeddings"):
        learned_rotation(torch.randn(4, 96), torch.tensor([0, 0, 1, 2]), (8,))


def test_recordings_that_are_not_as_many_as_embeddings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"recordings: shape \[3\] .expected \[4\]"):
        learned_rotation(torch.randn(4, 96), torch.tensor([0, 0, 1, 1]), (8,), recordings=torch.arange(3))


def test_principal_prefixes_hold_most_of_the_variance() -> None:
    embeddings = torch.randn(200, 6) * torch.tensor([0.1, 3.0, 0.2, 1.0, 0.1, 0.1])
    variances = F.normalize(embeddings).double() @ pca_rotation(embeddings).T.double()
    assert (variances.var(dim=0).diff() <= 0).all()


@pytest.mark.parametrize("out_norm", [False, True])
@pytest.mark.parametrize("dims", [(4, 16), (4, 16, 48)])
def test_a_rotated_encoder_scores_as_before_and_its_file_too(
    out_norm: bool, dims: tuple[int, ...], tmp_path: object
) -> None:
    encoder = trained_like((16,), out_norm=out_norm)
    encoder.thresholds = {16: 0.4}
    waveform = torch.randn(5, 8000)
    rotation = torch.linalg.qr(torch.randn(16, 16))[0]
    rotated = with_dims(encoder, dims, rotation)
    with torch.no_grad():
        before, after = encoder(waveform), rotated(waveform)
    torch.testing.assert_close(after[:, :16], before @ rotation.T, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cosines(after), cosines(before), atol=1e-5, rtol=0)
    assert (after[:, 16:] == 0).all()
    assert rotated.thresholds == {dims[-1]: 0.4}
    assert encoder.dims == (16,)  # the one it was made from is left alone

    path = f"{tmp_path}/rotated.safetensors"
    save_encoder(rotated, path)
    with torch.no_grad():
        torch.testing.assert_close(load_encoder(path)(waveform), after)


@pytest.mark.parametrize("out_norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_mean_is_taken_away_before_the_space_is_turned(bias: bool, out_norm: bool) -> None:
    encoder = trained_like((16,), out_norm=True)
    encoder.head = MatryoshkaProjection(encoder.head.linear.in_features, (16,), bias=bias, out_norm=out_norm).eval()
    encoder.thresholds = {16: 0.4}
    mean, rotation, waveform = torch.randn(16), torch.linalg.qr(torch.randn(16, 16))[0], torch.randn(3, 8000)
    if not (bias or out_norm):
        with pytest.raises(ConfigError, match="no offset"):
            with_dims(encoder, [8, 16], rotation, mean)
        return
    centered = with_dims(encoder, [8, 16], rotation, mean)
    with torch.no_grad():
        torch.testing.assert_close(centered(waveform), (encoder(waveform) - mean) @ rotation.T, atol=1e-5, rtol=1e-5)
    assert not centered.thresholds  # cosines are others now


def test_rows_that_were_added_learn() -> None:
    encoder = with_dims(trained_like((16,)), (16, 32)).train()
    target = torch.randn(4, 32)
    (1 - F.cosine_similarity(encoder(torch.randn(4, 8000)), target)).mean().backward()
    gradient = encoder.head.linear.weight.grad
    assert gradient is not None
    assert gradient[16:].abs().max() > 0


def test_a_smaller_size_keeps_the_first_directions() -> None:
    encoder = trained_like((16,))
    waveform = torch.randn(2, 8000)
    rotation = torch.linalg.qr(torch.randn(16, 16))[0]
    with torch.no_grad():
        torch.testing.assert_close(
            with_dims(encoder, [8], rotation)(waveform), with_dims(encoder, [8, 16], rotation)(waveform, dim=8)
        )


def test_what_cannot_be_fitted_says_why() -> None:
    with pytest.raises(ConfigError, match="at least two"):
        pca_rotation(torch.randn(1, 8))
    with pytest.raises(ConfigError, match="two speakers"):
        discriminative_rotation(torch.randn(4, 8), torch.arange(4))
    with pytest.raises(ConfigError, match="diverge"):
        pca_rotation(torch.full((3, 8), float("nan")))
    with pytest.raises(ConfigError, match=r"\[16, 16\]"):
        with_dims(trained_like((16,)), [8], torch.eye(8))
    with pytest.raises(ConfigError, match=r"mean: .*\[1, 16\].*\[16\]"):
        with_dims(trained_like((16,)), [8], mean=torch.zeros(1, 16))


def test_the_first_direction_tells_the_many_near_speakers_apart_not_the_one_far_away() -> None:
    torch.manual_seed(0)
    near = torch.tensor([[0.05 * index, 0.0, 1.0] for index in range(9)])
    far = torch.tensor([[0.2, 3.0, 1.0]])
    speakers = torch.arange(10).repeat_interleave(20)
    embeddings = torch.cat([near, far])[speakers] + 0.003 * torch.randn(200, 3)
    most_variance, most_told_apart = (
        pca_rotation(embeddings)[0].abs(),
        discriminative_rotation(embeddings, speakers)[0].abs(),
    )
    assert most_variance[1] > 0.7 > most_variance[0]
    assert most_told_apart[0] > 0.7 > most_told_apart[1]


def test_speakers_that_are_the_same_do_no_harm() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(8, 6).repeat(2, 1)  # every speaker twice, under two names
    rotation = discriminative_rotation(
        embeddings, torch.arange(4).repeat_interleave(2).repeat(2) + torch.tensor([0] * 8 + [4] * 8)
    )
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(6), atol=1e-5, rtol=0)
