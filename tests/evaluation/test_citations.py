"""Every citation names a place that its source has; what the logs of 2012 say there, read off by hand."""

import re

import cli
import pytest

from alexnet_jax.evaluation.references import load_references
from alexnet_jax.model.ablations import ABLATIONS
from alexnet_jax.model.cifar10 import CIFAR10
from alexnet_jax.model.zoo import LOGS as LOGS_OF
from alexnet_jax.model.zoo import NETWORKS

# The museum's repository (computerhistory/AlexNet-Source-Code) has these of what is cited, and of CIFAR-10's networks a
# 12pct but no 11pct: that one is in cuda-convnet, in two forms.
CHM = {f'layers/layer{kind}-{run}.cfg' for kind in ('s', '-params') for run in ('145', '145-half', '147', '148', '150')}
CHM |= {f'layers/layer-params-{run}.cfg' for run in ('145-2010', '146-2012-2011', '167')} | {'layers/layers-167.cfg'}
CHM |= {
    f'example-layers/layer{kind}-{name}.cfg'
    for kind in ('s', '-params')
    for name in ('80sec', '19pct', '18pct', 'conv-local-12pct', 'conv-local-13pct')
}
CHM |= {'layer.py', 'convdata_jpeg.py', 'shownet.py', 'src/layer_kernels.cu', 'src/weights.cu'}
CC = {
    f'example-layers/layer{kind}-{name}.cfg'
    for kind in ('s', '-params')
    for name in ('80sec', '19pct', '18pct', 'conv-local-11pct', 'conv-local-13pct')
}
CC |= {'convdata.py', 'include/cudaconv2/conv_util.cuh', 'src/cudaconv2/conv_util.cu'}
# file:line -> (top-1, top-5), fractions as they stand in the log.
LOGS = {
    'layers/layer-params-145.cfg:182': (0.406640, 0.182100),
    'layers/layer-params-145.cfg:203': (0.402500, 0.179940),
    'layers/layer-params-145-2010.cfg:178': (0.374727, 0.169987),
    'layers/layer-params-145-2010.cfg:180': (0.390247, 0.182953),
    'layers/layer-params-147.cfg:174': (0.410580, 0.185100),
    'layers/layer-params-148.cfg:148': (0.420340, 0.193620),
    'layers/layer-params-150.cfg:179': (0.418280, 0.193300),
    'layers/layer-params-167.cfg:184': (0.426772, 0.197590),
    'layers/layer-params-167.cfg:185': (0.404880, 0.181180),
    'layers/layer-params-145-half.cfg:100': (0.391680, 0.182287),
    'layers/layer-params-146-2012-2011.cfg:195': (0.389900, 0.166220),
}
TITLES = {'80sec': 0.26, '19pct': 0.19, '18pct': 0.18, 'conv-local-13pct': 0.13}  # line 1: "N% error on CIFAR-10"
LOGS |= {f'example-layers/layer-params-{name}.cfg:1': (error, None) for name, error in TITLES.items()}
SUFFIXES = ('.py', '.md', '.csv', '.ipynb')
CITATION = re.compile(r'\b(CHM|CC(?: [0-9a-f]{7})?)[\s#]+([\w/-]+\.(?:cfg|py|cuh?))\b')
FORMS = (
    r'paper, (table [12]|section \d(\.\d)?)',  # the results have sections 6 and, of pictures alone, 6.1
    r'CHM (layers|example-layers)/[\w-]+\.cfg:\d+',
    r'CC [0-9a-f]{7} example-layers/[\w-]+\.cfg:\d+',
    r'BVLC/caffe models/\w+/readme\.md',
    r'torchvision models/\w+\.py \w+',
)


def test_references_say_source_file_and_line_or_commit():
    for row in load_references():
        assert any(re.fullmatch(form, row.source) for form in FORMS), row.source
        assert row.source != 'paper, section 6.1'


# Of a whole network, and of one of its points: a section of the paper, a file with or without lines, PyTorch's names.
NETWORK_FORMS = (
    r'Krizhevsky, Sutskever, Hinton \(NIPS 2012\), sections \d to \d',
    r'CHM layers/layers-[\w-]+\.cfg( and layer-params-[\w-]+\.cfg)?',
    r'(CHM|CC [0-9a-f]{7}) example-layers/layers-([\w-]+)\.cfg and layer-params-\2\.cfg',
    r'BVLC/caffe, models/\w+',
    r'none: released with a chain of \d+ layers of 3x3, of initial weights as in arXiv 1502\.01852',
    r'Krizhevsky, "One weird trick" \(arXiv 1404\.5997\) as in torchvision/models/alexnet\.py',
)
_FILE = r'(?:CHM )?[\w/-]+\.(?:py|cfg|cpp|sh|prototxt)(?::\d+(?:-\d+)?)?'
POINT_FORMS = (
    rf'\d(\.\d)?(, figure \d)?(; edges {_FILE})?',
    rf'{_FILE}(, {_FILE}|, log)?',
    r'torch\.nn\.Conv2d, Linear',
)
ABLATION_SOURCE = re.compile(r'[Pp]aper section \d\.\d|CHM layers/layers-[\w-]+\.cfg|Not in CHM, nor the paper')


def test_networks_say_source_file_and_line_or_commit():
    for name, network in NETWORKS.items():
        assert any(re.fullmatch(form, network.source) for form in NETWORK_FORMS), (name, network.source)
        for point, where in network.sources:
            assert any(re.fullmatch(form, where) for form in POINT_FORMS), (name, point, where)
    files = {where for name in ('released', *LOGS_OF) for _, where in NETWORKS[name].sources}
    known = {path.removeprefix('layers/') for path in CHM}
    assert {re.split(r'[:,]', where)[0] for where in files} <= known


def test_ablations_say_where_they_are_from():
    """In their docstring, or in the comment above the name."""
    text = (cli.ROOT / 'alexnet_jax/model/ablations.py').read_text()
    table = text[text.index('ABLATIONS: dict') :]
    for name, ablation in ABLATIONS.items():
        above = table[: table.index(f"'{name}': ")].splitlines()[-2:]
        assert ABLATION_SOURCE.search(ablation.__doc__ or ' '.join(above)), name


def test_references_have_the_numbers_of_the_lines_they_cite():
    cited = {row.source.removeprefix('CHM '): row for row in load_references() if row.source.startswith('CHM ')}
    assert set(cited) == set(LOGS)
    for place, (top1, top5) in LOGS.items():
        assert cited[place].top1_error == pytest.approx(top1, abs=5.1e-6), place  # three decimals of a percentage
        assert cited[place].top5_error == (None if top5 is None else pytest.approx(top5, abs=5.1e-6)), place


def test_citations_name_files_that_their_source_has():
    """In the text of code, tests and pages, and of what the zoo prints."""
    folders = ('alexnet_jax', 'configs', 'docs', 'experiments', 'tests')
    found = set()
    for text in [path for folder in folders for path in (cli.ROOT / folder).rglob('*') if path.suffix in SUFFIXES]:
        for origin, path in CITATION.findall(text.read_text()):
            assert path in (CHM if origin == 'CHM' else CC), f'{text}: {origin} {path}'
            found.add((origin, path))
    assert len(found) > 20
    for network in CIFAR10.values():
        origin, path = network.source.split(' example-layers/')
        assert 'example-layers/' + path.split()[0] in (CHM if origin == 'CHM' else CC), network.source
    for name, commit in {'11pct': 'a2a6af8', '11pct_draft': '3878e8f', '18pct_published': '9438cba'}.items():
        assert CIFAR10[f'cifar10_{name}'].source.startswith(f'CC {commit} ')
