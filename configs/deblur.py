"""The bundled network deblur: a known blur of up to 7 x 7 pixels, in color images.

    python -m train configs/deblur.py --data.train BSDS500/train BSDS500/test

A small Converse-USRNet, 88,403 parameters, whose kernels are learned as differences from the blur:
after 200 steps it reaches 28 dB, from random kernels only 14 dB.

Expected: 30.04 dB on BSDS500 val with the paper's kernel 1 after 4,000 steps, 33 minutes on two
cores (docs/weights.md); the weights of the package had 5,000 more, from 5e-4 on: 30.16 dB.
deblur-free: the photographs of `python -m train.prepare free`, --steps 5000, shortened to 3000:
29.76 dB.
"""

from train.config import Config, Data, Optimizer
from train.networks import ConverseUSRNetConfig
from train.tasks import Deblur

config = Config(
    name="deblur",
    model=ConverseUSRNetConfig(
        num_features=32, num_blocks=3, num_iterations=4, kernel_residual=True
    ),
    task=Deblur(sigma=2.55),
    data=Data(patch_size=64, validation_size=240),
    optimizer=Optimizer(learning_rate=1e-3, schedule="cosine", warmup=100, clip=1.0),
    steps=4000,
    batch_size=8,
    ema=0.998,
    log_every=100,
    eval_every=1000,
    save_every=250,
)
