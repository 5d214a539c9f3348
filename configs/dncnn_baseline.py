"""DnCNN, gray, sigma 25: the first row of the paper's table 4.

    python -m train configs/dncnn_baseline.py --data.train BSD400 WED DIV2K Flickr2K

Expected: 30.43 dB on Set12, 29.23 on BSD68 (`converse-jax evaluate --task denoise --sigma 25`).
All other rows of all tables: `python -m train.tables`. For another baseline, e.g. Conv-DnCNN,
exchange the model for another of `train.networks`.
Time: 800,000 steps, which we have not run.
"""

from train.config import Config, Data
from train.networks import DnCNNConfig
from train.tasks import Denoise

config = Config(
    name="dncnn-gray-{sigma}",
    model=DnCNNConfig(),
    task=Denoise(sigma=25),
    data=Data(patch_size=128),
)
