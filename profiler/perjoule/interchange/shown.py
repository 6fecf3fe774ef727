"""An imported record for a terminal: whose it is first, then its figures, then what it does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perjoule.interchange.record import Figure, Joules
from perjoule.render import format as fmt
from perjoule.render.plain import printable

if TYPE_CHECKING:
    from perjoule.interchange.record import ImportedRecord

_DIGITS = 4
_FEW = 4  # of figures under the tool's own names: more would hide the others


def lines(record: ImportedRecord) -> list[str]:
    """Return the lines, each safe for a terminal."""
    tool = record.tool
    build = " ".join(part for part in (tool.version, tool.commit and f"commit {tool.commit}") if part)
    shape = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in record.load.items() if v)
    told = [
        f"imported from {tool.name}{f' ({build})' if build else ''}, not measured by perjoule",
        f"{record.model.name}, {record.test} on {record.device}" + (f" ({shape})" if shape else ""),
    ]
    named = {name: value for name, value in record.metrics.items() if isinstance(value, Figure)}
    shown = named | (record.other if len(record.other) <= _FEW else {})
    told += [f"  {name}: {said(value)}" for name, value in shown.items()]
    if len(record.other) > _FEW:
        told.append(f"  {len(record.other)} more figures under the tool's own names are in the file")
    reasons: dict[str, list[str]] = {}
    for name, value in record.metrics.items():
        if value is None:
            reason = record.metrics.get(f"{name}_missing")
            reasons.setdefault(reason if isinstance(reason, str) else "no reason recorded", []).append(name)
    told += [f"  no {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    sources = dict.fromkeys(v.obtained for v in (named | record.other).values() if isinstance(v, Joules))
    told += [f"  joules: {source}" for source in sources]
    told += [f"  no intervals: {record.intervals_missing}", *(f"  {remark}" for remark in record.remarks)]
    return [printable(line).replace("\n", "\\n") for line in told]


def said(value: Figure) -> str:
    """Return a figure with its deviation named as such; joules with their label and scope."""
    number = f"{fmt.significant(value.value, _DIGITS)} {value.unit}"
    if value.unit in ("s", "J"):
        number = fmt.si(value.value, value.unit, _DIGITS)
    elif value.unit == "bytes":
        number = fmt.size(value.value)
    spread = ""
    if value.spread is not None and value.value:
        share = fmt.significant(100 * value.spread / value.value, 2)
        spread = f", deviation {share} %" + (f" over {value.n} repetitions" if value.n else "")
    label = f" ({value.label}, {value.scope})" if isinstance(value, Joules) else ""
    return f"{number}{spread}{label}" + (f"; {value.note}" if value.note else "")
