"""The bundled network sr-x2: color images, twice as large.

    python -m train configs/sr_x2.py --init sr-x4 --init-partial
        --data.train BSDS500/train BSDS500/test

A small Converse-SRResNet that starts from the blocks of sr-x4.

Expected: 37.28 dB (Y) on Set5 after 5,000 steps, 14 minutes of two cores (docs/weights.md).
"""

from train.config import Config, Data, Optimizer
from train.networks import ConverseSRResNetConfig
from train.tasks import SuperResolve

config = Config(
    name="sr-x2",
    model=ConverseSRResNetConfig(num_features=48, num_blocks=10, high_blocks=False),
    task=SuperResolve(scale=2),
    # 32 x 32 pixels of the small image.
    data=Data(patch_size=64, validation_size=240),
    optimizer=Optimizer(learning_rate=2e-3, schedule="cosine", warmup=100, clip=1.0),
    steps=5000,
    batch_size=8,
    ema=0.998,
    log_every=100,
    eval_every=1000,
    save_every=250,
)
