"""The networks of the paper, one per file, and the registry for other networks."""

from converse_jax.models._registry import Registered, register, registered
from converse_jax.models.dncnn import ConverseDnCNN
from converse_jax.models.srresnet import ConverseSRResNet
from converse_jax.models.usrnet import ConverseNet, ConverseUSRNet

__all__ = [
    "ConverseDnCNN",
    "ConverseNet",
    "ConverseSRResNet",
    "ConverseUSRNet",
    "Registered",
    "register",
    "registered",
]
