"""The energy model in words and numbers for one host: formulae, coefficients, sources, and a worked power."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from perjoule.meters.amounts import Range, total
from perjoule.meters.coefficients import coefficients, power_share
from perjoule.records import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perjoule.meters.model import HostModel
    from perjoule.records import HostFacts

_WIDTH = 96
_MODEL_DIGITS = 2  # what a model is good for
_TABLE_DIGITS = 3
_GB = 1_000_000_000


def explain(host: HostFacts, model: HostModel | str, threads: int | None = None) -> list[str]:
    """Return lines under 100 columns that derive the joules of this host.

    ``threads`` is how many an engine uses by default; without it, what the facts of the host allow.
    """
    lines = [line for text in _machine(host) for line in _wrapped(text)]
    if isinstance(model, str):
        return lines + _wrapped(f"No model: {model}.")
    busy = threads or max(1, min(host.cpu.cores_visible, int(host.cpu.quota_cores or host.cpu.cores_visible)))
    texts = (*_row(host, model), *_formulae(model), *_coefficients(model), *_scope(model), *_worked(model, busy))
    return lines + [line for text in texts for line in _wrapped(text)]


def _machine(host: HostFacts) -> Iterator[str]:
    cpu = host.cpu
    yield f"CPU: {cpu.vendor} family {cpu.family} model {cpu.model} ({cpu.name})"
    where = f"virtual machine ({host.virtualization})" if host.virtualization else "bare metal"
    yield f"Machine: {where}, {cpu.threads} threads on {cpu.cores_visible} cores, {host.memory_bytes / _GB:.3g} GB"
    yield f"CPU limit (cgroup): {'none' if cpu.quota_cores is None else f'{cpu.quota_cores:g} cores'}"


def _row(host: HostFacts, model: HostModel) -> Iterator[str]:
    cpu, row = host.cpu, model.row
    ids = f"{cpu.vendor} family {cpu.family} model {cpu.model}"
    why = {
        "family-guest": f"{ids} is in its range; a name that the cloud masks decides nothing",
        "unknown-guest": f"{ids} is in no row; this one stands for those",
        "family": f"{ids} is in its range, and this is the whole machine",
        "family-tdp": f"{ids} is in its range, and its TDP was given: {model.tdp_w or 0:g} W",
        "tdp": f"{ids} is in no row, and its TDP was given: {model.tdp_w or 0:g} W",
    }
    yield f"CPU figures of: {row.name}, because {why[model.rest]}"
    for note in model.notes:
        yield f"Note: {note}"


def _formulae(model: HostModel) -> Iterator[str]:
    yield "Formulae"
    if model.curved:
        yield "  E_cpu = cpu_s / (cpu_s + foreign_s) x P_full x curve(u) x T, summed over windows of T seconds"
        yield "  u = (cpu_s + foreign_s) / (threads x T): the load; P_full = threads x a"
    else:
        yield "  E_cpu = cpu_s x a"
    yield "  E_dram = 8 x bytes streamed x e"
    yield f"  a = {_a_formula(model)} = {_span(model.thread_w)} W per visible thread at full load"
    yield f"  e = {_span(model.dram_j_per_bit.times(1e12))} pJ per bit{_cache_note(model)}"


def _a_formula(model: HostModel) -> str:
    tdp = coefficients().tdp
    ratio = tdp.amd_server if model.row.vendor == "AuthenticAMD" else tdp.intel_server
    return {
        "family-guest": "w x m, corner by corner",
        "unknown-guest": f"w x m, at least x/: {coefficients().widths.unknown_factor:g}",
        "family": f"w x m, +-{coefficients().widths.family:.0%}",
        "family-tdp": f"TDP x {ratio:g} / threads, +-{coefficients().widths.sku:.0%}",
        "tdp": f"TDP / threads, x {tdp.low:g} to {tdp.high:g}",
    }[model.rest]


def _cache_note(model: HostModel) -> str:
    return "; 0 at the low end, since the weights fit the last-level cache" if model.cached else ""


def _coefficients(model: HostModel) -> Iterator[str]:
    """Yield each coefficient that this host's joules rest on: low, central, high, source."""
    table, row = coefficients(), model.row
    standby, dram = table.memory_standby, table.dram
    yield "Coefficients: central (low-high); U marks a judgement"
    if model.rest in ("family-guest", "unknown-guest", "family"):
        yield f"  w, W per hardware thread at full load: {_span(row.full, _TABLE_DIGITS)}  [{row.source}]"
        source = table.threads_per_vcpu.source if "guest" in model.rest else "seen on bare metal; 2 where SMT is off"
        yield f"  m, hardware threads per visible thread: {_span(model.threads, _TABLE_DIGITS)}  [{source}]"
    if model.rest in ("family-tdp", "tdp"):
        yield f"  {_a_formula(model)}  [{table.tdp.source}]"
    if model.rest != "family-guest":
        widths = f"+-{table.widths.family:.0%}, +-{table.widths.sku:.0%}, x/: {table.widths.unknown_factor:g}"
        yield f"  widths {widths}  [{table.widths.source}]"
    if model.curved:
        shares = "  ".join(f"{power_share(n / 10):.2f}" for n in range(11))
        yield f"  curve at 0, 10 ... 100 % load: {shares}  [{table.curve.source}]"
    e = Range(low=dram.low_pj_per_bit, value=dram.central_pj_per_bit, high=dram.high_pj_per_bit)
    yield f"  e, pJ per bit from DRAM: {_span(e, _TABLE_DIGITS)}  [{dram.source}]"
    if row.idle is not None and not model.curved:
        yield f"  idle W per hardware thread: {_span(row.idle, _TABLE_DIGITS)}  [{row.source}]"
    watts = Range(low=standby.low_w_per_gb, value=standby.central_w_per_gb, high=standby.high_w_per_gb)
    yield f"  W per GB of standing memory: {_span(watts)}  [{standby.source}]"
    yield f"  pJ per multiply-accumulate, for the floor: {table.mac.picojoule:g}  [{table.mac.source}]"


def _scope(model: HostModel) -> Iterator[str]:
    yield f"In the headline: {model.scope}; label {model.label}, convention {model.convention}, {model.grade}"
    outside = "memory beyond what the CPU figure contains"
    if model.curved:
        outside += "; what the load adds to an idle machine is shown beside it, for comparison"
    elif model.row.idle is not None:
        outside += "; the vCPUs' share of the server's idle power"
    yield f"Outside the headline: {outside}"
    yield "In neither: GPUs, disks and network beyond what a server's wall power contains, cooling of the building"
    yield (
        "Floor: 8 x bytes x lowest e + multiply-accumulates x their energy. "
        "Ceiling: every visible thread at full load, at its highest a, and the bytes at the highest e"
    )


def _worked(model: HostModel, threads: int) -> Iterator[str]:
    """Yield the power of ``threads`` busy ones, alone on the machine, and of streaming 10 GB/s."""
    window = Window(
        id="example", process=0, phase="decode", start_s=0.0, end_s=1.0, cpu_s=float(threads), steal_s=0.0,
        foreign_cpu_s=0.0, bytes_streamed=10 * _GB,
    )  # fmt: skip
    parts = model.parts([window])
    if isinstance(parts, str):
        return
    cpu, dram = (part.joules for part in parts)
    yield f"Worked: {threads} of {model.visible_threads} threads busy, nothing else running, 10 GB/s streamed"
    yield f"  CPU {_span(cpu)} W + DRAM {_span(dram)} W = {_span(total(parts).joules)} W"
    for part in model.outside([window]):
        yield f"  outside: {part.domain} {_span(part.joules)} W"


def _span(span: Range, digits: int = _MODEL_DIGITS) -> str:
    low, value, high = (_plain(x, digits) for x in (span.low, span.value, span.high))
    return value if span.low == span.high else f"{value} ({low}-{high})"


def _plain(value: float, digits: int) -> str:
    """Return a number without an exponent."""
    return f"{float(f'{value:.{digits}g}'):.12f}".rstrip("0").rstrip(".")


def _wrapped(text: str) -> list[str]:
    indent = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(
        text.strip(), _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False
    )
