"""Images channels-last: which convolutions get them so."""

import torch
from torch import nn

from bdhf.optim.image_layout import ImageLayout


class Looking(nn.Conv2d):
    """A convolution that notes the order of its input."""

    channels_last = None

    def forward(self, images):
        self.channels_last = images.is_contiguous(memory_format=torch.channels_last)
        return super().forward(images)


def test_only_convolutions_of_one_pixel_with_a_stride_get_channels_first():
    """Torch's way back of these writes outside of its memory, channels-last."""
    torch.manual_seed(0)
    model = nn.Sequential(
        Looking(2, 4, 3, padding=1), Looking(4, 6, 1, stride=2), Looking(6, 6, 1), Looking(6, 3, 3)
    )
    images = torch.rand(5, 2, 14, 14)

    outputs = ImageLayout(model)(images)

    assert [module.channels_last for module in model] == [True, False, False, False]
    torch.testing.assert_close(outputs, model(images))
    assert not any(module._forward_pre_hooks for module in model)
