"""The losses do what their papers say, on whole embeddings and on prefixes."""

import math
from typing import Literal

import pytest
import torch
from torch.nn import functional as F

from voxnest import AAMSoftmax, MatryoshkaLoss, SubCenterAAMSoftmax, TripletLoss
from voxnest.errors import ConfigError
from voxnest.losses import OwnClasses, SphereFace2
from voxnest.matryoshka.loss import bearable_margin


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(8, 32), torch.randint(0, 5, (8,))


def arcface_by_angles(weight: torch.Tensor, embedding: torch.Tensor, label: torch.Tensor, margin: float) -> float:
    """The paper's formula, written with angles: cos(theta + m) where theta + m stays below pi."""
    total = 0.0
    for vector, own in zip(embedding.double(), label.tolist(), strict=True):
        angles = torch.acos(F.cosine_similarity(vector[None], weight.double()))
        theta = angles[own].item()
        logits = torch.cos(angles)
        shifted = math.cos(theta + margin)
        if theta + margin > math.pi:
            shifted = math.cos(theta) - margin * math.sin(margin)
        logits[own] = shifted
        total += F.cross_entropy(30 * logits[None], torch.tensor([own])).item()
    return total / len(label)


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5])
def test_aam_softmax_is_the_papers_formula(batch: tuple[torch.Tensor, torch.Tensor], margin: float) -> None:
    embedding, label = batch
    loss = AAMSoftmax(32, 5, margin=margin)
    expected = arcface_by_angles(loss.weight.detach(), embedding, label, margin)
    assert loss(embedding, label).item() == pytest.approx(expected, rel=1e-4)


def test_aam_softmax_lowers_the_own_class_also_where_the_angle_would_pass_pi() -> None:
    loss = AAMSoftmax(4, 2, margin=0.5, scale=1.0)
    opposite = -loss.weight.detach()[:1]
    plain = AAMSoftmax(4, 2, margin=0.0, scale=1.0)
    plain.weight.data.copy_(loss.weight.data)
    label = torch.tensor([0])
    assert loss(opposite, label) > plain(opposite, label)


def test_easy_margin_leaves_negative_cosines_alone() -> None:
    loss = AAMSoftmax(4, 2, margin=0.3, easy_margin=True, scale=1.0)
    plain = AAMSoftmax(4, 2, margin=0.0, scale=1.0)
    plain.weight.data.copy_(loss.weight.data)
    label = torch.tensor([0])
    assert loss(-loss.weight[:1], label).item() == pytest.approx(plain(-loss.weight[:1], label).item(), rel=1e-5)
    assert loss(loss.weight[:1], label) > plain(loss.weight[:1], label)


def test_the_margin_can_be_raised_during_training(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    embedding, label = batch
    loss = AAMSoftmax(32, 5, margin=0.0)
    before = loss(embedding, label).item()
    loss.margin = 0.3
    assert loss(embedding, label).item() > before


@pytest.mark.parametrize("kind", [AAMSoftmax, SubCenterAAMSoftmax])
def test_a_prefix_uses_the_prefix_of_the_class_weights(
    batch: tuple[torch.Tensor, torch.Tensor], kind: type[AAMSoftmax]
) -> None:
    embedding, label = batch
    loss = kind(32, 5)
    loss(embedding[:, :8], label).backward()
    assert loss.weight.grad is not None
    assert loss.weight.grad[:, :8].abs().sum() > 0
    assert loss.weight.grad[:, 8:].abs().sum() == 0


def test_one_sub_center_is_plain_aam_softmax(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    plain, sub = AAMSoftmax(32, 5), SubCenterAAMSoftmax(32, 5, sub_centers=1)
    sub.weight.data.copy_(plain.weight.data)
    torch.testing.assert_close(plain(*batch), sub(*batch))


def test_the_nearest_sub_center_counts() -> None:
    loss = SubCenterAAMSoftmax(4, 2, margin=0.0, sub_centers=2)
    loss.weight.data = torch.eye(4)
    cosines = loss.cosines(torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    torch.testing.assert_close(cosines, torch.tensor([[1.0, 0.0]]))


def test_every_class_has_as_many_centers_as_asked_for_and_learns_with_the_nearest_alone() -> None:
    torch.manual_seed(0)
    loss = SubCenterAAMSoftmax(6, 4, margin=0.2, sub_centers=5)
    assert loss.weight.shape == (20, 6)
    embedding, label = torch.randn(1, 6), torch.tensor([2])
    loss(embedding, label).backward()
    assert loss.weight.grad is not None
    moved = loss.weight.grad.abs().sum(dim=1).unflatten(0, (4, 5)) > 0
    nearest = F.cosine_similarity(embedding, loss.weight.detach()).unflatten(0, (4, 5)).argmax(dim=1)
    assert torch.equal(moved, F.one_hot(nearest, 5).bool())


def test_all_centers_of_a_class_begin_near_its_mean_and_apart() -> None:
    torch.manual_seed(0)
    loss = SubCenterAAMSoftmax(32, 4, sub_centers=3)
    loss.begin_at(means := torch.randn(4, 32))
    cosines = F.normalize(loss.weight.detach()) @ F.normalize(means).T
    assert torch.equal(cosines.argmax(dim=1), torch.arange(4).repeat_interleave(3))
    assert cosines.amax(dim=1).min() > 0.95
    assert torch.pdist(F.normalize(loss.weight.detach())).min() > 0.05


def test_gradients_stay_finite_where_an_embedding_is_its_class_weight() -> None:
    loss = AAMSoftmax(4, 2)
    embedding = loss.weight.detach()[:1].clone().requires_grad_()
    loss(embedding, torch.tensor([0])).backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


def test_triplet_loss_takes_the_hardest_positive_and_negative() -> None:
    angles = torch.tensor([0.0, 0.1, 0.6, 0.9, 2.0])
    embedding = torch.stack([angles.cos(), angles.sin()], dim=1)
    label = torch.tensor([0, 0, 0, 1, 2])  # speakers 1 and 2 have no positive
    distance = 1 - (angles[:, None] - angles[None, :]).cos()
    expected = torch.stack(
        [distance[0, 2] - distance[0, 3], distance[1, 2] - distance[1, 3], distance[2, 0] - distance[2, 3]]
    )
    result = TripletLoss(margin=0.3)(embedding, label)
    torch.testing.assert_close(result, F.relu(expected + 0.3).mean())


def test_triplet_loss_without_a_triplet_is_zero_with_a_gradient() -> None:
    embedding = torch.randn(3, 4, requires_grad=True)
    loss = TripletLoss()(embedding, torch.tensor([0, 1, 2]))
    loss.backward()
    assert loss.item() == 0


def test_matryoshka_loss_is_the_weighted_mean_over_prefixes(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    embedding, label = batch
    base = AAMSoftmax(32, 5)
    loss = MatryoshkaLoss(base, dims=(8, 32), weights=(1.0, 3.0))
    total, parts = loss({8: embedding[:, :8], 32: embedding}, label)
    assert parts[8].item() == pytest.approx(base(embedding[:, :8], label).item())
    assert total.item() == pytest.approx(0.25 * parts[8].item() + 0.75 * parts[32].item())


def test_matryoshka_loss_takes_any_base_loss(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    embedding, label = batch
    total, parts = MatryoshkaLoss(TripletLoss(), dims=(8, 32))({8: embedding[:, :8], 32: embedding}, label)
    assert set(parts) == {8, 32}
    assert total.isfinite()


@pytest.mark.parametrize("weights", [(1.0,), (0.0, 0.0), (1.0, -1.0)])
def test_matryoshka_loss_refuses_senseless_weights(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError):
        MatryoshkaLoss(TripletLoss(), dims=(8, 32), weights=weights)


@pytest.mark.parametrize("base", [AAMSoftmax(32, 5, margin=0.4), TripletLoss(margin=0.4)])
def test_a_prefix_can_be_asked_for_a_share_of_the_margin(base: torch.nn.Module) -> None:
    torch.manual_seed(0)
    embedding, label = torch.randn(6, 32), torch.tensor([0, 0, 1, 1, 2, 2])
    prefixes = {8: embedding[:, :8], 32: embedding}
    _, parts = MatryoshkaLoss(base, dims=(8, 32), margin_shares=(0.5, 1.0))(prefixes, label)
    assert parts[32] == base(embedding, label)
    base.margin = 0.2
    assert parts[8] == pytest.approx(base(embedding[:, :8], label).item())


@pytest.mark.parametrize("shares", [(1.0,), (1.0, -0.1)])
def test_unusable_margin_shares_are_a_config_error(shares: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="margin_shares"):
        MatryoshkaLoss(TripletLoss(), dims=(8, 32), margin_shares=shares)


def test_short_prefixes_bear_less_of_a_margin() -> None:
    assert [bearable_margin(dim) for dim in (1, 8, 16, 32, 64, 256)] == [0, 0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("dim", [2, 8])
def test_margin_of_a_perfect_embedding_has_a_gradient_in_mixed_precision(dim: int) -> None:
    # bfloat16 cannot tell 0.998 from 1, where the derivative of the sine is infinite.
    loss = AAMSoftmax(dim, num_classes=3, margin=0.2)
    embedding = (loss.weight.detach() * 5 + 1e-3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(embedding, torch.arange(3))
    value.backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()
    assert loss.weight.grad is not None
    assert loss.weight.grad.isfinite().all()
    assert value.dtype == torch.float32


def sphereface2_by_hand(loss: SphereFace2, embedding: torch.Tensor, label: torch.Tensor, margin: float) -> float:
    """The paper's formula, one pair at a time."""
    total = 0.0
    for vector, own in zip(embedding.double(), label.tolist(), strict=True):
        cosines = F.cosine_similarity(vector[None], loss.weight.detach().double()[:, : embedding.shape[1]]).tolist()
        for number, cosine in enumerate(cosines):
            sign = 1 if number == own else -1
            shift = 0.0
            if loss.margin_type == "A":
                cosine = math.cos(math.acos(cosine) + sign * margin)
            else:
                shift = sign * margin
            logit = loss.scale * (2 * ((cosine + 1) / 2) ** loss.exponent - 1 - shift) + loss.bias.item()
            share = 0.7 if number == own else 0.3
            total += share * math.log(1 + math.exp(-sign * logit))
    return total / len(label)


@pytest.mark.parametrize("dim", [8, 32])
@pytest.mark.parametrize("kind", ["A", "C"])
def test_sphereface2_is_the_papers_formula_on_whole_embeddings_and_prefixes(
    batch: tuple[torch.Tensor, torch.Tensor], kind: Literal["A", "C"], dim: int
) -> None:
    embedding, label = batch[0][:, :dim], batch[1]
    loss = SphereFace2(32, 5, margin=0.3, margin_type=kind)
    assert loss(embedding, label, 0.5).item() == pytest.approx(
        sphereface2_by_hand(loss, embedding, label, 0.15), rel=1e-4
    )


@pytest.mark.parametrize("kind", ["A", "C"])
def test_sphereface2_starts_where_own_and_other_classes_pull_alike(kind: Literal["A", "C"]) -> None:
    loss = SphereFace2(200, 100, margin=0.1, margin_type=kind)
    loss.weight.data = torch.eye(200)[:100]
    loss(torch.eye(200)[100:104], torch.arange(4)).backward()  # at a right angle to all classes
    assert loss.bias.grad is not None
    assert abs(loss.bias.grad) < 1e-3
    assert loss(torch.eye(200)[100:104], torch.arange(4)) < 30


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kind", ["A", "C"])
def test_gradients_of_sphereface2_are_finite_at_and_opposite_to_a_class(kind: Literal["A", "C"], sign: int) -> None:
    loss = SphereFace2(4, 2, margin_type=kind)
    embedding = (sign * loss.weight.detach()).requires_grad_()
    loss(embedding, torch.arange(2)).backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


def test_the_nearest_other_classes_are_made_harder_by_inter_top_k(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    embedding, label = batch
    loss = AAMSoftmax(32, 5, margin=0.4, sub_centers=2, top_k=2, top_margin=0.06)
    angles = torch.acos(loss.cosines(embedding).detach().double())
    logits = torch.cos(angles)
    for row, own in enumerate(label.tolist()):
        others = sorted((angle, number) for number, angle in enumerate(angles[row].tolist()) if number != own)
        for angle, number in others[:2]:
            logits[row, number] = math.cos(angle - 0.06 * 0.4 / 0.2)
        logits[row, own] = math.cos(angles[row, own] + 0.4)
    assert loss(embedding, label).item() == pytest.approx(F.cross_entropy(30 * logits, label).item(), rel=1e-4)
    more = AAMSoftmax(32, 5, top_k=100)  # of four others
    assert more(embedding, label).isfinite()


def test_prefixes_with_own_classes_learn_nothing_from_each_other(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    embedding, label = batch
    own = OwnClasses({dim: AAMSoftmax(dim, 5) for dim in (8, 32)})
    own.margin = 0.3
    assert [loss.margin for loss in own.losses.values()] == [0.3, 0.3]
    own.begin_at(means := torch.randn(5, 32))
    for dim in (8, 32):
        weight = own.losses[str(dim)].weight
        nearest = F.normalize(weight.detach()) @ F.normalize(means[:, :dim]).T
        assert weight.shape == (5, dim)
        assert torch.equal(nearest.argmax(dim=1), torch.arange(5))
    MatryoshkaLoss(own, dims=(8, 32))({8: embedding[:, :8], 32: embedding}, label, {8: 1.0, 32: 0.0})[0].backward()
    assert own.losses["8"].weight.grad.abs().sum() > 0
    assert own.losses["32"].weight.grad is None, "of what does not count no derivatives are taken"
    assert own.largest is own.losses["32"]
