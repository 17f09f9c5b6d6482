"""Layers that do what torch's do, in another way."""

import pytest
import torch

from voxnest.models.layers import BatchNorm


@pytest.mark.parametrize(("bins", "channels"), [(60, 10), (15, 40), (1, 24), (8, 16)])
def test_batch_norm_trains_as_torchs_does_whatever_the_channels(bins: int, channels: int) -> None:
    """Theirs in double precision: in single, on one thread, its sums are twenty times less exact than ours."""
    torch.manual_seed(0)
    ours, theirs = BatchNorm(channels), torch.nn.BatchNorm2d(channels).double()
    ours.weight.data.uniform_(0.5, 2.0)
    ours.bias.data.normal_()
    theirs.load_state_dict(ours.state_dict())
    values = torch.randn(3, 20, bins, channels) * torch.rand(channels) + torch.randn(channels)
    gradient = torch.randn(3, 20, bins, channels)
    results, gradients = [], []
    for layer, to, back in ((ours, (0, 1, 2, 3), (0, 1, 2, 3)), (theirs, (0, 3, 1, 2), (0, 2, 3, 1))):
        inputs = values.to(layer.weight.dtype, copy=True).requires_grad_()
        for _ in range(2):
            result = layer(inputs.permute(to)).permute(back)
        result.backward(gradient.to(result.dtype))
        results.append(result.detach().float())
        gradients.append([tensor.grad.float() for tensor in (inputs, layer.weight, layer.bias)])
    theirs.float()
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)
    # A channel's mean may be a hundred times its deviation: so much of the precision is gone before a value is centred.
    torch.testing.assert_close(gradients[0], gradients[1], atol=5e-4, rtol=1e-5)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.eval()(values).permute(0, 3, 1, 2), theirs.eval()(values.permute(0, 3, 1, 2)))
