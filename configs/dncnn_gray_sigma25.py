"""Converse-DnCNN, gray, sigma 25: the last row of the paper's table 4.

    python -m train configs/dncnn_gray_sigma25.py --data.train BSD400 WED DIV2K Flickr2K

Expected: 30.70 dB on Set12, 29.36 on BSD68 (`converse-jax evaluate --task denoise --sigma 25`).
The paper trains on BSD400, Waterloo Exploration, DIV2K and Flickr2K; any folders will do.
Time: 800,000 steps, which we have not yet run to the end; about a minute per step on two CPU cores.
So far 14,000 steps of 16 patches of 64x64, seven and a half minutes of an H100: 30.20 dB on Set12
(docs/results.md).
On a device with little memory, compute the batch in parts: --accumulation 4.
"""

from train.config import Config, Data
from train.networks import ConverseDnCNNConfig
from train.tasks import Denoise

config = Config(
    name="converse-dncnn-gray-{sigma}",
    model=ConverseDnCNNConfig(),
    task=Denoise(sigma=25),
    data=Data(patch_size=128),
)
