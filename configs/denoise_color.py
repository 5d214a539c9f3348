"""The bundled network denoise-color: noise of any level from 0 to 50 in color images.

    python -m train configs/denoise_color.py --data.train BSDS500/train BSDS500/test

The architecture won a race at equal time (docs/weights.md): 129,708 parameters, 28 times as fast as
Converse-DnCNN.

Expected: 30.44 dB on BSDS500 val at sigma 25 after 7,500 steps, 25 minutes on two cores; 30.74 dB
after 12,000 more (--init denoise-color --optimizer.learning-rate 1e-3 --steps 12000), 40 minutes
more (docs/weights.md). denoise-color-free: --data.train with the photographs of `python -m
train.prepare free`, --steps 16000: 30.51 dB.
"""

from train.config import Config, Data, Optimizer
from train.networks import ConverseDnCNNConfig
from train.tasks import Denoise

config = Config(
    name="denoise-color",
    model=ConverseDnCNNConfig(
        channels=3,
        num_features=48,
        num_blocks=6,
        downscale=2,
        noise_level=True,
        residual=True,
    ),
    task=Denoise(sigma=0, sigma_max=50),
    data=Data(patch_size=96, validation_size=240),
    optimizer=Optimizer(learning_rate=2e-3, schedule="cosine", warmup=100, clip=1.0),
    steps=7500,
    batch_size=8,
    ema=0.998,
    log_every=100,
    eval_every=500,
    save_every=250,
)
