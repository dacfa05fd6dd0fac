"""The benchmark's figures as text, at most 110 columns wide."""

from __future__ import annotations

from alexnet_jax.benchmark.figures import PROGRAMS, Figures

_TITLES = {
    'one_device': 'this project, one device',
    'two_device': 'this project, two devices',
    'torch_eager': 'PyTorch eager',
    'torch_eager_channels_last': 'PyTorch eager, channels_last',
    'torch_compiled': 'PyTorch compiled, channels_last',
    'torch_best': 'PyTorch best: + hand-written LRN',
}
_RATIOS = {
    'to PyTorch eager, faster layout': 'ratio_to_torch',
    'to the fastest PyTorch': 'ratio_to_torch_best',
    'to the matrix products below': 'fraction_of_gemm',
}
NOISY = 0.1  # share of the cores that others may use before the figures come with a warning


def text(figures: Figures) -> str:
    """All tables, one batch size after the other."""
    hardware, setting = figures['hardware'], figures['setting']
    versions = ', '.join(f'{name} {version}' for name, version in figures['versions'].items())
    header = [
        f'{hardware["cpu"]}, {hardware["cores"]} cores; {hardware["system"]}',
        f'{versions}; allocator {setting["allocator"]}',
        f'network: paper, width {setting["width"]:g}, {setting["classes"]} classes, float32',
    ]
    return '\n'.join(header + [line for batch in figures['by_batch'].values() for line in ['', *_batch(batch)]])


def _batch(figures: Figures) -> list[str]:
    measured = {
        'one_device': {program: figures[program] for program in PROGRAMS},
        'two_device': figures['two_device'],
        **{f'torch_{form}': programs for form, programs in figures['torch'].items()},
    }
    lines = [
        f'batch {figures["batch"]}: images/s, median (quartiles)',
        f'{"":34}{"training":>24}{"inference":>24}{"peak MB (training)":>22}',
    ]
    for name, programs in measured.items():
        peak = figures['peak_bytes'][name]
        columns = ''.join(f'{spread(programs[program], "images_per_second", 1):>24}' for program in PROGRAMS)
        lines.append(f'{_TITLES[name]:34}{columns}{"unknown" if peak is None else f"{peak / 1e6:,.0f}":>22}')
    lines += ['', f'{"one device, ratio of each round":34}{"training":>24}{"inference":>24}']
    for title, key in _RATIOS.items():
        if figures['train'][key] is not None:
            lines.append(title.ljust(34) + ''.join(f'{spread(figures[program], key, 2):>24}' for program in PROGRAMS))
    two = [spread(figures['two_device'][program], 'ratio_to_one_device', 2) for program in PROGRAMS]
    lines += [f'{"two devices to one":34}{two[0]:>24}{two[1]:>24}', '', _ceilings(figures['ceilings'])]
    if figures['layers']:
        lines += ['', *_layers(figures['layers'])]
    return [*lines, *noise(figures['foreign'])]


def spread(figures: Figures, key: str, digits: int) -> str:
    """A median and its quartiles."""
    low, high = figures[f'{key}_quartiles']
    return f'{figures[key]:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})'


def _ceilings(ceilings: dict[str, float]) -> str:
    products = [f'{name.removeprefix("gemm_")} {rate:.0f}' for name, rate in ceilings.items() if 'gemm_' in name]
    moves = [f'{name} {rate:.1f}' for name, rate in ceilings.items() if 'gemm_' not in name]
    return f'ceilings: matrix products {", ".join(products)} GFLOP/s; memory {", ".join(moves)} GB/s'


def _layers(layers: Figures) -> list[str]:
    ceilings = f'{layers["gemm_gflops"]:.0f} GFLOP/s or {layers["memory_gb_per_second"]:.1f} GB/s'
    lines = [
        f'each layer alone; its bound is {ceilings}, whichever takes longer',
        'MB are the least that must move: operands and results, each once',
        f'{"":26}{"ms":>9}{"GFLOP":>9}{"MB":>9}{"rate":>18}{"of its bound":>14}{"of the step":>13}',
    ]
    for row in layers['rows']:
        rate = f'{row["rate"]:.1f} {"GFLOP/s" if row["bound"] == "arithmetic" else "GB/s   "}'
        lines.append(
            f'{row["name"]:26}{row["seconds"] * 1e3:9.2f}{row["gflop"]:9.2f}{row["megabytes"]:9.1f}{rate:>18}'
            f'{row["fraction_of_bound"]:14.0%}{row["seconds"] / layers["step_seconds"]:13.1%}'
        )
    forward, backward = (layers[f'convolutions_{way}_fraction_of_gemm'] for way in ('forward', 'backward'))
    return [
        *lines,
        f'convolutions together: {forward:.0%} of the matrix products forward, {backward:.0%} backward',
        f'the rows add up to {layers["explained"]:.0%} of the training step ({layers["step_seconds"] * 1e3:.0f} ms)',
    ]


def noise(foreign: Figures) -> list[str]:
    """One line about the others on this machine."""
    if foreign['median'] is None:
        return ['how much others used the machine is unknown on this system']
    line = f'others used {foreign["median"]:.0%} of the cores (median sample; worst {foreign["worst"]:.0%})'
    return [line + (': NOISY, do not rely on these figures' if foreign['median'] > NOISY else '')]
