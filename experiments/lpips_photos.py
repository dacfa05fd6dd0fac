"""How far `net.distance` is from the package lpips in PyTorch, on pairs of photographs of three sizes.

    PYTHONPATH=.:tests python experiments/lpips_photos.py FOLDER [PAIRS]

Needs the extras `pretrained` and `torch`, and `pip install --no-deps lpips tqdm`. Takes twice PAIRS (20) photographs
from all over FOLDER and resizes them to 64, 224 and 227. lpips gets the same convolutions, its own linear layers and
its own code. Prints the range of distances and the largest difference, relative to lpips' own.
"""

import pathlib
import sys

import numpy as np
import torch
from peers.lpips_peer import import_lpips, make_peer, to_lpips
from PIL import Image

import alexnet_jax


def main(folder, pairs=20):
    """Compares."""
    count = 2 * int(pairs)
    paths = sorted(path for path in pathlib.Path(folder).rglob('*') if path.suffix.lower() in ('.jpg', '.jpeg'))
    photos = [Image.open(path).convert('RGB') for path in paths[:: len(paths) // count][:count]]
    lpips, net = import_lpips(), alexnet_jax.load('imagenet_trunk')
    peers = {learned: make_peer(lpips, net, learned=learned) for learned in (True, False)}
    print('size  weights  pairs  lpips from    to        at most apart')
    for size in (64, 224, 227):
        ours, others = np.split(np.stack([photo.resize((size, size)) for photo in photos]).astype(np.float32), 2)
        for learned, peer in peers.items():
            with torch.no_grad():
                wanted = peer(to_lpips(ours), to_lpips(others)).numpy().ravel()
            found = np.asarray(net.distance(ours, others, weights='lpips' if learned else None))
            apart = np.abs(found / wanted - 1).max()
            name = 'learned' if learned else 'none'
            print(f'{size:4}  {name:7}  {len(found):5}  {wanted.min():.6f}  {wanted.max():.6f}  {apart:.1e}')


if __name__ == '__main__':
    main(*sys.argv[1:])
