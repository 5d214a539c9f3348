"""The networks of the paper, one a file."""

from converse_jax.models.dncnn import ConverseDnCNN
from converse_jax.models.srresnet import ConverseSRResNet
from converse_jax.models.usrnet import ConverseNet, ConverseUSRNet

__all__ = ["ConverseDnCNN", "ConverseNet", "ConverseSRResNet", "ConverseUSRNet"]
