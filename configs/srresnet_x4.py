"""Converse-SRResNet x4: the last row of the paper's table 5.

    python -m train configs/srresnet_x4.py --data.train BSD400 WED DIV2K Flickr2K

Expected: 32.25 dB on Set5, 28.72 on Set14, 27.62 on BSD100, 26.24 on Urban100, luma
(`converse-jax evaluate --task sr`). For x2 and x3: --task.scale 2, --task.scale 3.
Time: 800,000 steps, which we have not yet run to the end; about 4 s per patch on two CPU cores.
"""

from train.config import Config, Data
from train.networks import ConverseSRResNetConfig
from train.tasks import SuperResolve

config = Config(
    name="converse-srresnet-x{scale}",
    model=ConverseSRResNetConfig(),
    task=SuperResolve(scale=4),
    # 48 x 48 pixels of the small image.
    data=Data(patch_size=192),
)
