"""Converse-USRNet, deblurring with a known kernel: the last row of the paper's table 7.

    python -m train configs/usrnet_deblur.py --data.train BSD400 WED DIV2K Flickr2K

Expected, on BSD100 with kernels 1 to 5: 32.46, 31.20, 38.40, 32.21, 34.62 dB
(`converse-jax evaluate --task deblur --kernel kernel_1.npy`).
Time: 800,000 steps, which we have not yet run to the end; about 10 s per patch on two CPU cores.
The first losses are large, as the data modules start from random kernels.
"""

from train.config import Config, Data
from train.networks import ConverseUSRNetConfig
from train.tasks import Deblur

config = Config(
    name="converse-usrnet-deblur",
    model=ConverseUSRNetConfig(),
    task=Deblur(sigma=2.55),
    data=Data(patch_size=128),
)
