"""A small Converse-DnCNN on photographs that need no download: denoising, gray, sigma 25.

    python -m train configs/quickstart.py
    python -m train.export runs/quickstart quickstart.safetensors
    converse-jax restore noisy.png clean.png --model quickstart.safetensors

Expected: at least 7 dB above the noisy images, in less than four minutes on two CPU cores.
"""

from train.config import Config, Data, Optimizer
from train.networks import ConverseDnCNNConfig
from train.tasks import Denoise

config = Config(
    name="quickstart",
    model=ConverseDnCNNConfig(num_features=16, num_blocks=4, kernel_size=3),
    task=Denoise(sigma=25),
    data=Data(train=("embedded",), patch_size=28),
    optimizer=Optimizer(learning_rate=8e-3, schedule="cosine", warmup=20, clip=1.0),
    steps=2500,
    batch_size=4,
    ema=0.99,
    log_every=50,
    eval_every=250,
    save_every=500,
)
