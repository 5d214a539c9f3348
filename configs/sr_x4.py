"""The bundled network sr-x4: color images, four times as large.

    python -m train configs/sr_x4.py --data.train BSDS500/train BSDS500/test

A small Converse-SRResNet, all of whose blocks work at the resolution of the input.

Expected: 31.03 dB (Y) on Set5 after 8,000 steps, 25 minutes on two cores (docs/weights.md).
sr-x4-free: --data.train with the photographs of `python -m train.prepare free`: 30.82 dB.
"""

from train.config import Config, Data, Optimizer
from train.networks import ConverseSRResNetConfig
from train.tasks import SuperResolve

config = Config(
    name="sr-x4",
    model=ConverseSRResNetConfig(num_features=48, num_blocks=10, high_blocks=False),
    task=SuperResolve(scale=4),
    # 32 x 32 pixels of the small image.
    data=Data(patch_size=128, validation_size=240),
    optimizer=Optimizer(learning_rate=2e-3, schedule="cosine", warmup=100, clip=1.0),
    steps=8000,
    batch_size=8,
    ema=0.998,
    log_every=100,
    eval_every=1000,
    save_every=250,
)
