"""The bundled network denoise-gray: noise of any level from 0 to 50 in gray images.

    python -m train configs/denoise_gray.py --init denoise-color --init-partial
        --data.train BSDS500/train BSDS500/test

The architecture is the winner of a race at equal time (docs/weights.md): 128,932 parameters, a
28th of the time of Converse-DnCNN.

Expected: 29.54 dB on Set12 at sigma 25 after 1,800 + 5,000 steps (the second with --init
denoise-gray and a new cosine), 22 minutes of two cores, from the blocks of denoise-color
(docs/weights.md); it still climbs.
"""

from train.config import Config, Data, Optimizer
from train.networks import ConverseDnCNNConfig
from train.tasks import Denoise

config = Config(
    name="denoise-gray",
    model=ConverseDnCNNConfig(
        channels=1,
        num_features=48,
        num_blocks=6,
        downscale=2,
        noise_level=True,
        residual=True,
    ),
    task=Denoise(sigma=0, sigma_max=50),
    data=Data(patch_size=96, validation_size=240),
    optimizer=Optimizer(learning_rate=1e-3, schedule="cosine", warmup=100, clip=1.0),
    steps=1800,
    batch_size=8,
    ema=0.998,
    log_every=100,
    eval_every=500,
    save_every=250,
)
