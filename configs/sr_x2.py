"""The bundled network sr-x2: color images, twice as large.

    python -m train configs/sr_x2.py --init sr-x4 --init-partial
        --data.train BSDS500/train BSDS500/test

A small Converse-SRResNet that starts from the blocks of sr-x4.

Expected: 37.28 dB (Y) on Set5 after 5,000 steps, 14 minutes on two cores (docs/weights.md).
sr-x2-free: --init sr-x4-free --init-partial, the photographs of `python -m train.prepare free`,
--steps 4000: 37.05 dB.
"""

from dataclasses import replace

from configs.sr_x4 import config as x4
from train.tasks import SuperResolve

config = replace(
    x4,
    name="sr-x2",
    task=SuperResolve(scale=2),
    # 32 x 32 pixels of the small image.
    data=replace(x4.data, patch_size=64),
    steps=5000,
)
