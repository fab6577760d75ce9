"""The data of stage 3: volumes by epochs and, beside them, an endless row of images."""

from torch.utils.data import DataLoader

from .files import find_images, find_volumes
from .loader import endless_loader, epoch_loader
from .pictures import CropDataset, Pictures, collate_pictures
from .volumes import VolumeDataset, collate_volumes


def joint_loaders(config, find, rank: int, world: int) -> tuple[DataLoader, DataLoader | None]:
    """Loaders of volumes and of images (None without `image_path`), from a stage-3 configuration. find: the run's.

    An image comes as two crops, as large as a slice of the volumes.
    """
    volumes = VolumeDataset(find(find_volumes, config.data_path), config.target_shape, config.seed, config.fit)
    loader = epoch_loader(volumes, collate_volumes, config.batch_size, config.seed, config.workers, rank, world, "volumes")
    if not config.image_path:
        return loader, None
    pictures = Pictures(find(find_images, config.image_path))
    crops = CropDataset(pictures, config.seed, (2,), (min(config.target_shape[1:]),), (config.image_min_scale,), (1.0,))
    images = endless_loader(
        crops, collate_pictures, config.image_batch_size, len(loader), config.seed, config.workers, rank, world
    )
    return loader, images
