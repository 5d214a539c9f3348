"""The bundled network photo: ordinary photographs, as cameras store them.

    python -m train configs/photo.py --init denoise-color --data.train BSDS500/train BSDS500/test

It starts from the weights of denoise-color, the same network.

Expected: +0.22 dB on average over 30 phone-like photographs of BSDS500 val, -0.09 dB at worst,
after 2,422 steps with half of the levels estimated and 2,500 more as here (--init photo
--optimizer.learning-rate 5e-4), 20 minutes on two cores (docs/weights.md).

photo-free: --init denoise-color-free, --data.train with the photographs of `python -m train.prepare
free`, --steps 2400 --task.estimate-share 0.4: +0.18 dB, -0.08 at worst.
"""

from dataclasses import replace

from configs.denoise_color import config as color
from train.camera import Photo

config = replace(
    color,
    name="photo",
    # As in use: the level is always estimated. Told the whole estimate,
    # the network took more from one photograph of thirty.
    task=Photo(estimated=1.0, estimate_share=0.85),
    optimizer=replace(color.optimizer, learning_rate=1e-3),
    steps=3000,
)
