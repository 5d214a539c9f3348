"""ConverseNet, deblurring without the kernel: the second row of the paper's table 7.

    python -m train configs/conversenet_blind_deblur.py --data.train BSD400 WED DIV2K Flickr2K

Expected, on BSD100 with kernels 1 to 5: 27.69, 24.43, 31.28, 27.64, 27.31 dB
(`converse-jax evaluate --task deblur --kernel kernel_1.npy`).
Time: 800,000 steps, which we have not yet run to the end; about 10 s per patch on two CPU cores.
"""

from train.config import Config, Data
from train.networks import ConverseNetConfig
from train.tasks import Deblur

config = Config(
    name="conversenet-blind-deblur",
    model=ConverseNetConfig(),
    task=Deblur(sigma=2.55),
    data=Data(patch_size=128),
)
