"""MatConvNet's structs (matlab/simplenn/vl_simplenn.m), for scipy.io.savemat, without this project's code."""

import numpy as np


def matconvnet_layers(weights, *, norm_first=True, old=False):
    """A SimpleNN network's layers of {'conv1': (kernel (h, w, in, out), bias)}; `old`: by the names of before."""
    layers = []
    for title, (kernel, bias) in weights.items():
        pad, stride = {'conv1': (0, 4), 'conv2': (2, 1)}.get(title, (title < 'd', 1))
        if title > 'd':
            places = (6, 6) if title == 'fc6' else (1, 1)
            kernel = kernel.reshape(*places, -1, kernel.shape[1])
        arrays = {'filters': kernel, 'biases': bias} if old else {'weights': matlab_cell([kernel, bias[:, None]])}
        how = {'pad': np.full((1, 4), float(pad)), 'stride': np.array([[stride, stride]], 'u1')} if old else {}
        how = how or {'pad': float(pad), 'stride': stride}
        layers.append({'type': 'conv', 'name': title} | arrays | how)
        if title == 'fc8':
            break
        layers.append({'type': 'relu', 'name': f'relu{title[-1]}'})
        norm = {'type': 'normalize' if old else 'lrn', 'name': f'norm{title[-1]}', 'param': [5, 1, 1e-4 / 5, 0.75]}
        pool = {'type': 'pool', 'name': f'pool{title[-1]}', 'method': 'max', 'pool': [3, 3], 'stride': 2}
        pool['pad'] = [0, 1, 0, 1] if old else 0  # top, bottom, left, right, as Caffe rounds up
        both = [norm] * (title in ('conv1', 'conv2')) + [pool] * (title in ('conv1', 'conv2', 'conv5'))
        layers += both if norm_first else both[::-1]
        layers += [{'type': 'dropout', 'name': f'drop{title[-1]}', 'rate': 0.5}] * (title in ('fc6', 'fc7'))
    return [*layers, {'type': 'softmax' if old else 'softmaxloss', 'name': 'prob'}]


def matlab_cell(values):
    """A cell of one row."""
    cell = np.empty((1, len(values)), object)
    cell[0] = values
    return cell
