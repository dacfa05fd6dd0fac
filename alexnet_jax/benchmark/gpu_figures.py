"""A GPU's figures from its samples: the object that `bench step --device=gpu --json` prints, and its table."""

import statistics

from alexnet_jax.benchmark import summary
from alexnet_jax.benchmark.measure import TORCH_FORMS, Results
from alexnet_jax.benchmark.summary import Figures
from alexnet_jax.communication.gpus import GPUS, Gpu

PROGRAMS = ('train', 'inference')
_WIDTHS = (10, 7, 26, 16, 16, 10)


def find_published(device: str) -> Gpu | None:
    """Finds what is published of a device by the name that JAX gives it; None of an unknown one."""
    words = device.replace('-', ' ').lower().split()
    return next((gpu for name, gpu in GPUS.items() if name in words), None)


def find_peaks(device: str, precision: str) -> tuple[float, float] | None:
    """Finds the published (FLOP/s, bytes/s) of a device by the name that JAX gives it; None of an unknown one."""
    gpu = find_published(device)
    if gpu is None:
        return None
    flops = {'bfloat16': gpu.flops, 'tf32': gpu.tf32_flops, 'float32': gpu.float32_flops}
    return flops[precision], gpu.memory_bandwidth


def make_gpu_figures(results: list[Results], device: str) -> Figures:
    """Returns 'device', 'rows', one for each precision and batch size, and what they were measured on."""
    versions = {library: version for result in results for library, version in result.versions.items()}
    rows = [summarise_row(result, device) for result in results]
    return {'device': device, 'rows': rows, **summary.describe_machine(versions)}


def summarise_row(result: Results, device: str) -> Figures:
    """Returns one precision and batch size: images/s of each form, ratios, fractions, peaks; None: not measured.

    'ratio_to_torch_best' is to PyTorch's fastest form by its median; above 1 this project is faster. Fractions are of
    the largest product's speed that was measured here ('fraction_of_gemm') and of the published peak.
    """
    setting, samples = result.setting, result.network
    row = Figures(batch=setting.batch, precision=setting.precision, forms={}, peak_bytes={})
    ceilings = {do: m for (name, do), m in samples.items() if name == 'gpu_ceilings'}
    gemm = ceilings['gemm'].flop / statistics.median(ceilings['gemm'].seconds) if 'gemm' in ceilings else None
    copy = ceilings['copy'].moved / statistics.median(ceilings['copy'].seconds) if 'copy' in ceilings else None
    published = find_peaks(device, setting.precision)
    row |= {'gemm_flops': gemm, 'copy_bytes_per_second': copy}
    row['copy_fraction_of_peak'] = copy / published[1] if copy and published else None
    for program in PROGRAMS:
        medians = {
            name: statistics.median(m.seconds) for (name, do), m in samples.items() if do == program and m.samples
        }
        for name, seconds in medians.items():
            row['forms'].setdefault(name, {})[program] = setting.batch / seconds
        torch = {form: medians[f'torch_{form}'] for form in TORCH_FORMS if f'torch_{form}' in medians}
        ours = medians.get('one_device')
        best = min(torch, key=lambda form: torch[form]) if torch else None
        speed = samples['one_device', program].flop / ours if ours else None
        row[program] = {
            'ratio_to_torch_best': torch[best] / ours if best and ours else None,
            'torch_best': best,
            'fraction_of_gemm': speed / gemm if speed and gemm else None,
            'fraction_of_peak': speed / published[0] if speed and published else None,
        }
    for (name, program), measured in samples.items():
        if program == 'train':
            peaks = [sample.peak_bytes for sample in measured.samples if sample.peak_bytes is not None]
            row['peak_bytes'][name] = max(peaks, default=None)
    return row


def format_gpu_figures(figures: Figures) -> str:
    """Formats a line for each precision, batch size and form, and one of ratios and fractions below them."""
    machine, versions = summary.format_machine(figures)
    header = summary.format_row(_WIDTHS, 'precision', 'batch', 'form', 'training', 'inference', 'peak GB')
    lines = [f'{figures["device"]}; {machine}', versions, 'images/s, medians', header]
    for row in figures['rows']:
        for name, speeds in row['forms'].items():
            cells = (f'{speeds[p]:,.0f}' if p in speeds else '-' for p in PROGRAMS)
            peak = row['peak_bytes'].get(name)
            memory = '-' if peak is None else f'{peak / 1e9:.2f}'
            lines.append(summary.format_row(_WIDTHS, row['precision'], str(row['batch']), name, *cells, memory))
        for program in PROGRAMS:
            lines.append(f'    {program}: {format_shares(row[program])}')
    return '\n'.join(lines)


def format_shares(found: Figures) -> str:
    """Formats a program's ratio to PyTorch and its fractions; what was not measured is left out."""
    parts = []
    if found['ratio_to_torch_best'] is not None:
        parts.append(f'{found["ratio_to_torch_best"]:.2f}x PyTorch {found["torch_best"]}')
    if found['fraction_of_gemm'] is not None:
        parts.append(f'{found["fraction_of_gemm"]:.0%} of the measured product')
    if found['fraction_of_peak'] is not None:
        parts.append(f'{found["fraction_of_peak"]:.0%} of the published peak')
    return ', '.join(parts) or 'not measured'
