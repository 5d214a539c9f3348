"""The bundled network photo: ordinary photographs, as cameras store them.

    python -m train configs/photo.py --init denoise-color --data.train BSDS500/train BSDS500/test

It starts from the weights of denoise-color, which has the same form.

Expected: +0.22 dB on average over 30 phone-like photographs of BSDS500 val, -0.11 dB at worst,
after 2,422 steps with half of the levels estimated and 2,500 more as here (--init photo
--optimizer.learning-rate 5e-4), 20 minutes of two cores (docs/weights.md).
"""

from train.camera import Photo
from train.config import Config, Data, Optimizer
from train.networks import ConverseDnCNNConfig

config = Config(
    name="photo",
    model=ConverseDnCNNConfig(
        channels=3,
        num_features=48,
        num_blocks=6,
        downscale=2,
        noise_level=True,
        residual=True,
    ),
    # As in use: the level is always estimated.
    task=Photo(estimated=1.0),
    data=Data(patch_size=96, validation_size=240),
    optimizer=Optimizer(learning_rate=1e-3, schedule="cosine", warmup=100, clip=1.0),
    steps=3000,
    batch_size=8,
    ema=0.998,
    log_every=100,
    eval_every=500,
    save_every=250,
)
