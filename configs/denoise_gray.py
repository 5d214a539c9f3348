"""The bundled network denoise-gray: noise of any level from 0 to 50 in gray images.

    python -m train configs/denoise_gray.py --init denoise-color --init-partial
        --data.train BSDS500/train BSDS500/test

The architecture won a race at equal time (docs/weights.md): 128,932 parameters, 28 times as fast as
Converse-DnCNN.

Expected: 29.72 dB on Set12 at sigma 25 after 8,000 steps, 45 minutes on two cores, from the
blocks of denoise-color (docs/weights.md), still rising.
"""

from dataclasses import replace

from configs.denoise_color import config as color

config = replace(
    color,
    name="denoise-gray",
    model=replace(color.model, channels=1),
    optimizer=replace(color.optimizer, learning_rate=1e-3),
    steps=8000,
)
