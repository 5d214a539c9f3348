"""Converse-DnCNN, gray, sigma 25: the last row of the paper's table 4.

    python -m train configs/dncnn_gray_sigma25.py --data.train BSD400 WED DIV2K Flickr2K

Expected: 30.70 dB on Set12, 29.36 on BSD68 (`converse-jax evaluate --task denoise --sigma 25`).
The paper trains on BSD400, Waterloo Exploration, DIV2K and Flickr2K; any folders will do.
Time: 800,000 steps, not run to the end by us yet. On two CPU cores a step takes about a minute.
A device with little memory computes the same batch in parts: --accumulation 4.
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
