"""The bundled network denoise-gray: noise of any level from 0 to 50 in gray images.

    python -m train configs/denoise_gray.py --init denoise-color --init-partial
        --data.train BSDS500/train BSDS500/test

Ten blocks where denoise-color has six: 214,564 parameters, a 17th of Converse-DnCNN's time.

Expected: 29.85 dB on Set12 at sigma 25 after 4,200 steps, from weights of six blocks (29.72 dB)
that came from those of denoise-color in 8,000 steps: --model.num-blocks 6 --steps 8000, then --init
with their export. 3,900 more from there, --init with the export again: 29.93 dB. From those the
bundled weights went on on a GPU, --batch-size 32 --steps 2500, stopped after 2,390: 30.03 dB
(docs/weights.md).
denoise-gray-free: --init denoise-color-free --init-partial, the photographs of `python -m
train.prepare free`, --steps 8000, shortened to 7000: 29.37 dB.
"""

from dataclasses import replace

from configs.denoise_color import config as color

config = replace(
    color,
    name="denoise-gray",
    model=replace(color.model, channels=1, num_blocks=10),
    optimizer=replace(color.optimizer, learning_rate=1e-3),
    steps=4200,
)
