"""Classes of ImageNet's validation images, from the files that are published with it."""

import io
import re

from ...errors import UserError
from .archives import ArchiveError, open_archive

DEVKIT = 'ILSVRC2012_devkit_t12.tar.gz'  # of ImageNet itself
CAFFE = 'caffe_ilsvrc12.tar.gz'  # of Caffe, as text


def read_labels(path):
    """The class of each validation image.

    Args:
        path (Path): The archive ``DEVKIT`` (needs scipy) or ``CAFFE``.

    Returns:
        dict[str, str]: From 'ILSVRC2012_val_00000001.JPEG' to the class's WordNet id, such as
        'n01751748'.

    Raises:
        ArchiveError: it is damaged or not that archive.
        UserError: scipy is needed and not installed.
    """
    read = _read_devkit if path.name == DEVKIT else _read_caffe
    with open_archive(path) as members:
        files = {member.name: member for member in members}
        try:
            labels = read(lambda name: files[name].open().read())
        except (KeyError, IndexError, ValueError) as error:
            if isinstance(error.__cause__, ImportError):
                raise
            raise ArchiveError(f'archive {path} is not the published one: {error!r}') from error
    strange = [wnid for wnid in labels.values() if not re.fullmatch(r'n\d{8}', wnid)]
    if strange:
        raise ArchiveError(f'archive {path} is not the published one: {strange[0]!r} is no class')
    return labels


def _read_devkit(read):
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError(
            f'{DEVKIT} holds a MATLAB file: pip install scipy, or take {CAFFE} in its place'
        ) from error
    folder = 'ILSVRC2012_devkit_t12/data'
    synsets = loadmat(io.BytesIO(read(f'{folder}/meta.mat')), squeeze_me=True)['synsets']
    wnids = {int(i): str(wnid) for i, wnid in zip(synsets['ILSVRC2012_ID'], synsets['WNID'])}
    truth = read(f'{folder}/ILSVRC2012_validation_ground_truth.txt').decode().split()
    return {f'ILSVRC2012_val_{i:08}.JPEG': wnids[int(label)] for i, label in enumerate(truth, 1)}


def _read_caffe(read):
    wnids = read('synsets.txt').decode().split()
    lines = (line.split() for line in read('val.txt').decode().splitlines())
    return {name: wnids[int(label)] for name, label in lines}
