"""Stage 2 for the SwAV branch: `mask_deepcluster_3D.py`, starting from the weights of `ssl_swav_2D.py`.

Reads    training_data_3D/<collection>/*.npy, weights/resnet_swav2D.pth
Writes   weights/mask_swav.pth
Run      torchrun --nproc_per_node=2 mask_swav_3D.py
"""

from dataclasses import dataclass

from engine.run import launch
from mask_deepcluster_3D import MaskConfig, main


@dataclass(kw_only=True)
class MaskSwavConfig(MaskConfig):
    resnet_pretrained: str = "resnet_swav2D.pth"  # weights of stage 1, inside pretrained_path
    checkpoint_name: str = "mask_swav.pth"  # the weight file that this script writes, inside pretrained_path


if __name__ == "__main__":
    launch(MaskSwavConfig, lambda config: main(config, method="swav"))
