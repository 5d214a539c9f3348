"""The networks of the paper, one per file, and the registry for other networks."""

from converse_jax.models._registry import WEIGHTS, Registered, register, registered
from converse_jax.models.dncnn import ConvDnCNN, ConverseDnCNN, ConvTransposeDnCNN, DnCNN
from converse_jax.models.srresnet import (
    ConverseSRResNet,
    ConvSRResNet,
    ConvTransposeSRResNet,
    SRResNet,
    Upsampler,
)
from converse_jax.models.usrnet import ConverseNet, ConverseUSRNet, ConvNet, ConvUSRNet

__all__ = [
    "WEIGHTS",
    "ConvDnCNN",
    "ConvNet",
    "ConvSRResNet",
    "ConvTransposeDnCNN",
    "ConvTransposeSRResNet",
    "ConvUSRNet",
    "ConverseDnCNN",
    "ConverseNet",
    "ConverseSRResNet",
    "ConverseUSRNet",
    "DnCNN",
    "Registered",
    "SRResNet",
    "Upsampler",
    "register",
    "registered",
]
