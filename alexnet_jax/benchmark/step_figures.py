"""The training step's figures from its samples: the object that `bench step --json` prints, and its tables."""

import statistics
from collections.abc import Iterable

from alexnet_jax.benchmark import summary
from alexnet_jax.benchmark.measure import TORCH_FORMS, Results, Samples
from alexnet_jax.benchmark.summary import Figures

PROGRAMS = ('train', 'inference')
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
_SPEED_WIDTHS, _LAYER_WIDTHS = (34, 24, 24, 22), (26, 9, 9, 9, 18, 14, 13)


def make_step_figures(results: list[Results]) -> Figures:
    """Returns the figures of the first batch size, of all under 'by_batch', and what they were measured on."""
    by_batch = {str(result.setting.batch): summarise_batch(result) for result in results}
    first = results[0]
    return {
        **by_batch[str(first.setting.batch)],
        'by_batch': by_batch,
        'setting': {key: getattr(first.setting, key) for key in ('width', 'classes', 'allocator')},
        **summary.describe_machine(first.versions),
    }


def summarise_batch(results: Results) -> Figures:
    """Returns the figures of one batch size.

    Speeds are medians over rounds, in images/s, and '..._quartiles' the quartiles. Ratios are medians of the ratios of
    each round; 'ratio_to_torch' is to the faster of eager PyTorch's layouts, 'ratio_to_torch_best' to its fastest form,
    both by median speed. 'peak_bytes' is the largest resident set of a process in training, without compiling. None
    stands where something was not measured.
    """
    samples, batch = results.network, results.setting.batch
    products = [measured for (_, program), measured in samples.items() if program.startswith('gemm_')]
    gemm = min(products, key=lambda measured: statistics.median(measured.seconds))
    figures, two_device = Figures(batch=batch), Figures()
    for program in PROGRAMS:
        one, two = samples['one_device', program], samples['two_device', program]
        rates = ([measured.flop / s for s in measured.seconds] for measured in (one, gemm))
        figures[program] = summary.summarise_speed(one.seconds, batch) | {
            **summary.summarise_ratios('fraction_of_gemm', *rates),
            **_compare_to_torch(samples, program, 'ratio_to_torch', [f for f in TORCH_FORMS if f.startswith('eager')]),
            **_compare_to_torch(samples, program, 'ratio_to_torch_best', TORCH_FORMS),
        }
        ratio = summary.summarise_ratios('ratio_to_one_device', one.seconds, two.seconds)
        two_device[program] = summary.summarise_speed(two.seconds, batch) | ratio
    figures['two_device'] = {'ratio_to_one_device': two_device['train']['ratio_to_one_device'], **two_device}
    figures['torch'], figures['peak_bytes'] = {}, {}
    for (name, program), measured in samples.items():
        if name.startswith('torch_') and program in PROGRAMS:
            form = figures['torch'].setdefault(name.removeprefix('torch_'), {})
            form[program] = summary.summarise_speed(measured.seconds, batch)
        if program == 'train':
            peaks = (sample.peak_bytes for sample in measured.samples if sample.peak_bytes is not None)
            figures['peak_bytes'][name] = max(peaks, default=None)
    figures['ceilings'] = _summarise_ceilings(samples)
    figures['layers'] = _summarise_layers(results.layers) if results.layers else None
    figures['foreign'] = summary.summarise_foreign(samples)
    return figures


def _compare_to_torch(samples: Samples, program: str, name: str, forms: Iterable[str]) -> Figures:
    seconds = {form: samples[key].seconds for form in forms if (key := (f'torch_{form}', program)) in samples}
    if not seconds:
        return {name: None, f'{name}_quartiles': None, f'{name}_form': None}
    fastest = min(seconds, key=lambda form: statistics.median(seconds[form]))
    ratio = summary.summarise_ratios(name, seconds[fastest], samples['one_device', program].seconds)
    return {**ratio, f'{name}_form': fastest}


def _summarise_ceilings(samples: Samples) -> Figures:
    """Returns {'gemm_numpy': GFLOP/s, ..., 'copy': GB/s, 'add': GB/s}, medians."""
    return {
        program: statistics.median((measured.flop or measured.moved) / s / 1e9 for s in measured.seconds)
        for (name, program), measured in samples.items()
        if name in ('ceilings', 'torch_ceiling')
    }


def _summarise_layers(samples: Samples) -> Figures:
    """Returns each layer's time beside the least that its arithmetic and memory traffic could take at the ceilings.

    'rows': one for each program; 'seconds', 'gflop', 'megabytes' (of one call), 'bound' ('arithmetic' or 'memory'),
    'rate' (GFLOP/s or GB/s), 'fraction_of_bound'. 'explained': the rows' times over the step's.
    """
    ceilings = _summarise_ceilings(samples)
    gemm = max(rate for name, rate in ceilings.items() if name.startswith('gemm_')) * 1e9
    memory = max(ceilings['copy'], ceilings['add']) * 1e9
    layers = {program: m for (name, program), m in samples.items() if name == 'layers' and program != 'train'}
    step = samples['layers', 'train'].seconds
    rows, convolutions = [], {'forward': [0.0, 0.0], 'backward': [0.0, 0.0]}  # flop, seconds
    for name, layer in layers.items():
        spread = summary.summarise_values('seconds', layer.seconds)
        arithmetic, traffic = layer.flop / gemm, layer.moved / memory
        bound, work = ('arithmetic', layer.flop) if arithmetic >= traffic else ('memory', layer.moved)
        row = {'name': name, **spread, 'gflop': layer.flop / 1e9, 'megabytes': layer.moved / 1e6, 'bound': bound}
        row['rate'] = work / spread['seconds'] / 1e9
        rows.append(row | {'fraction_of_bound': max(arithmetic, traffic) / spread['seconds']})
        if name.startswith('conv') and layer.flop:
            total = convolutions['forward' if name.endswith('forward') else 'backward']
            total[:] = total[0] + layer.flop, total[1] + spread['seconds']
    totals = [sum(times) for times in zip(*(layer.seconds for layer in layers.values()), strict=True)]
    return {
        'gemm_gflops': gemm / 1e9,
        'memory_gb_per_second': memory / 1e9,
        'rows': rows,
        **{f'convolutions_{way}_fraction_of_gemm': flop / s / gemm for way, (flop, s) in convolutions.items()},
        'step_seconds': statistics.median(step),
        'explained': summary.summarise_ratios('explained', totals, step)['explained'],
    }


def format_step_figures(figures: Figures) -> str:
    """Formats all tables, one batch size after the other, at most 110 columns wide."""
    (machine, versions), setting = summary.format_machine(figures), figures['setting']
    network = f'network: paper, width {setting["width"]:g}, {setting["classes"]} classes, float32'
    header = [machine, f'{versions}; allocator {setting["allocator"]}', network]
    return '\n'.join(header + [line for batch in figures['by_batch'].values() for line in ['', *_format_batch(batch)]])


def _format_batch(figures: Figures) -> list[str]:
    def add_row(title: str, programs: Figures, key: str, digits: int, *cells: str) -> None:
        spreads = (summary.format_spread(programs[program], key, digits) for program in PROGRAMS)
        lines.append(summary.format_row(_SPEED_WIDTHS, title, *spreads, *cells))

    networks = {'one_device': figures, 'two_device': figures['two_device']}
    networks |= {f'torch_{form}': programs for form, programs in figures['torch'].items()}
    lines = [f'batch {figures["batch"]}: images/s, median (quartiles)']
    lines.append(summary.format_row(_SPEED_WIDTHS, '', 'training', 'inference', 'peak MB (training)'))
    for name, programs in networks.items():
        peak = figures['peak_bytes'][name]
        memory = 'unknown' if peak is None else f'{peak / 1e6:,.0f}'
        add_row(_TITLES[name], programs, 'images_per_second', 1, memory)
    lines += ['', summary.format_row(_SPEED_WIDTHS, 'one device, ratio of each round', 'training', 'inference')]
    for title, key in _RATIOS.items():
        if figures['train'][key] is not None:
            add_row(title, figures, key, 2)
    add_row('two devices to one', figures['two_device'], 'ratio_to_one_device', 2)
    products = [f'{key.removeprefix("gemm_")} {x:.0f}' for key, x in figures['ceilings'].items() if 'gemm_' in key]
    moves = [f'{key} {x:.1f}' for key, x in figures['ceilings'].items() if 'gemm_' not in key]
    lines += ['', f'ceilings: matrix products {", ".join(products)} GFLOP/s; memory {", ".join(moves)} GB/s']
    if figures['layers']:
        lines += ['', *_format_layer_costs(figures['layers'])]
    return [*lines, summary.format_foreign(figures['foreign'])]


def _format_layer_costs(layers: Figures) -> list[str]:
    ceilings = f'{layers["gemm_gflops"]:.0f} GFLOP/s or {layers["memory_gb_per_second"]:.1f} GB/s'
    lines = [
        f'each layer alone; its bound is {ceilings}, whichever takes longer',
        'MB are the least that must move: operands and results, each once',
        summary.format_row(_LAYER_WIDTHS, '', 'ms', 'GFLOP', 'MB', 'rate', 'of its bound', 'of the step'),
    ]
    for row in layers['rows']:
        seconds, unit = row['seconds'], {'arithmetic': 'GFLOP/s', 'memory': 'GB/s   '}[row['bound']]
        work = f'{seconds * 1e3:.2f}', f'{row["gflop"]:.2f}', f'{row["megabytes"]:.1f}', f'{row["rate"]:.1f} {unit}'
        shares = f'{row["fraction_of_bound"]:.0%}', f'{seconds / layers["step_seconds"]:.1%}'
        lines.append(summary.format_row(_LAYER_WIDTHS, row['name'], *work, *shares))
    forward, backward = (layers[f'convolutions_{way}_fraction_of_gemm'] for way in ('forward', 'backward'))
    lines.append(f'convolutions together: {forward:.0%} of the matrix products forward, {backward:.0%} backward')
    step = f'the training step ({layers["step_seconds"] * 1e3:.0f} ms)'
    return [*lines, f'the rows add up to {layers["explained"]:.0%} of {step}']
