"""`alexnet VERB ...`, and equally `python -m alexnet_jax VERB ...`: a table of verbs."""

import sys

import alexnet_jax
from alexnet_jax.commands.dispatch import run_verb
from alexnet_jax.commands.interrupts import Interrupts

VERBS = {
    'train': 'train a network: --config=configs/two_device.py',
    'prepare': 'make a dataset ready for training, from folders, archives or TFDS',
    'evaluate': 'test a network under both protocols, beside the published errors',
    'predict': 'name the classes of photographs, and their nearest training images',
    'features': 'write what a layer makes of images to a file',
    'explain': 'show where a network looks: how much each pixel counts for a class',
    'compare-images': 'tell how different images look to the convolutions, as LPIPS does',
    'probe': 'tell how well a simple classifier on the features of each layer knows a dataset',
    'report': 'write one HTML page about a run, or several compared',
    'doctor': 'find out why a run does not learn',
    'compare': 'say whether a training on ImageNet is on course',
    'convert': 'carry weights in and out: safetensors, ONNX, torchvision, Caffe, StableHLO',
    'checkpoint': 'list, verify and export checkpoints',
    'sweep': 'run one config many times, with other values each time',
    'launch': 'run several processes of one training run on this machine',
    'audit': 'print who talks to whom in a training step, and predict it for TPUs',
    'bench': "measure the speed of the training step and of the input, beside others'",
}


def main() -> None:
    """Runs the verb that the command line names, in this process."""
    with Interrupts() as interrupts:
        verb, rest = (sys.argv[1:2] or ['--help'])[0], sys.argv[2:]
        if verb in VERBS:
            run_verb(verb, rest, interrupts)
        elif verb in ('--help', '-h', 'help'):
            _print_help()
        elif verb == '--version':
            print(f'alexnet_jax {alexnet_jax.__version__}')
        else:
            from alexnet_jax.console import suggest

            sys.exit(f'error: unknown verb {verb!r}: {suggest(verb, VERBS)}')


def _print_help() -> None:
    from alexnet_jax.commands.command_line import exit_without_reader

    with exit_without_reader():
        print('usage: alexnet VERB [--OPTION=VALUE ...]; alexnet VERB --help explains a verb\n')
        print('\n'.join(f'  {name:16}{text}' for name, text in VERBS.items()))


if __name__ == '__main__':
    main()
