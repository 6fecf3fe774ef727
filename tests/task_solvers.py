"""Answers worked out from the prompt alone, another way than the generators do: by regular expressions and search."""

# ruff: noqa: RUF001 - signs of full width are what is meant

from __future__ import annotations

import itertools
import re
from decimal import Decimal
from functools import cache

from perjoule.quality.item import Choice, Exact, Fields, Item, Key, Number, Order
from perjoule.quality.task_file import Text
from perjoule.quality.task_file import load_task as load

NUMBER = r"(\d+(?:\.\d+)?)"


@cache
def words(task: str, language: str) -> Text:
    return load(task).text[language]


def solve(item: Item) -> Key:
    return SOLVERS[item.task](item)


def arithmetic(item: Item) -> Key:
    [expression] = re.findall(r"\d+(?: [+×] \d+)+", item.prompt)
    total = Decimal(0)
    for product in expression.split(" + "):
        value = Decimal(1)
        for factor in product.split(" × "):
            value *= Decimal(factor)
        total += value
    return Number(value=str(total))


def copying(item: Item) -> Key:
    return Exact(text=item.prompt.split("\n")[1])


def order_total(item: Item) -> Key:
    goods, shipping, discount = Decimal(0), Decimal(0), Decimal(0)
    for line in item.prompt.splitlines():
        numbers = [Decimal(n) for n in re.findall(NUMBER, line)]
        if line.startswith("- "):
            goods += numbers[0] * numbers[1]
        elif re.match("Shipping|运费|배송비", line):
            [shipping] = numbers
        elif re.match("Discount|优惠|할인", line):
            [discount] = numbers
            if "%" in line or "percent" in line:
                discount = goods * discount / 100
    return Number(value=str(goods + shipping - discount))


def shortest_route(item: Item) -> Key:
    assert isinstance(item.key, Order)
    rows = re.findall(r"^(\S+) - (\S+?)[:：] ?(\d+)", item.prompt, flags=re.MULTILINE)
    km = {frozenset((a, b)): int(d) for a, b, d in rows}
    stops = sorted({name for pair in km for name in pair} - {item.key.start})
    assert len(km) == len(stops) * (len(stops) + 1) // 2
    ways = sorted(
        (sum(km[frozenset(leg)] for leg in itertools.pairwise((item.key.start, *order))), order)
        for order in itertools.permutations(stops)
    )
    assert ways[0][0] < ways[1][0], "two orders are as short"
    return Order(names=ways[0][1], start=item.key.start)


def delay_reason(item: Item) -> Key:
    text = words("delay-reason", item.language)
    reasons = text["reasons"]
    assert isinstance(reasons, tuple)
    *_, last = [line for line in item.prompt.splitlines() if line.startswith("2031-")]
    note = re.split("[:：] ?", last, maxsplit=2)[-1]
    place = [*text["named"], *text["clues"]].index(note)
    reason = reasons[place] if place < len(reasons) else reasons[(place - len(reasons)) // 3]
    listed = re.search(r"(?:Choose one: |从中选一个：|고르세요: )(.*)[.。]", item.prompt)
    assert listed
    return Choice(text=reason, choices=tuple(re.split(", |、", listed[1])))


def order_fields(item: Item) -> Key:
    def said(*names: str) -> str:
        [value] = re.findall(
            rf"^(?:{'|'.join(names)})[:：] ?(.*?)(?: ?(?:dollars|美元|달러))?$", item.prompt, flags=re.MULTILINE
        )
        return str(value)

    found = {
        "order": lambda: said("Order number", "订单号", "주문 번호"),
        "customer": lambda: said("Customer", "客户", "고객"),
        "product": lambda: said("Product", "商品", "상품"),
        "color": lambda: said("Color", "颜色", "색상"),
        "quantity": lambda: said("Quantity", "数量", "수량"),
        "price": lambda: said("Unit price", "单价", "단가"),
    }
    changed = re.findall(r"^(?:Change|变更|변경).*?\d+\D+(\d+)", item.prompt, flags=re.MULTILINE)
    asked = re.findall(r'^"(\w+)" ?[(（](text|number|文本|数字|문자열|숫자)', item.prompt, flags=re.MULTILINE)
    answer = {key: changed[0] if key == "quantity" and changed else found[key]() for key, _ in asked}
    return _fields(asked, answer)


def address_fields(item: Item) -> Key:
    text = words("address-fields", item.language)
    address = item.prompt.split("\n\n")[0]
    valid = re.sub(r"(No longer valid|已失效的地址|더 이상 쓰지 않는 주소).*|(Note|备注|참고).*", "", address)

    def one_of(name: str) -> str:
        [value] = [word for word in text[name] if word in valid]
        return value

    def match(pattern: str) -> str:
        [value] = re.findall(pattern, valid)
        return str(value)

    street = re.escape(one_of("streets")) if any(s in valid for s in text["streets"]) else ""
    found = {
        "name": lambda: one_of("names"),
        "street": lambda: one_of("streets"),
        "city": lambda: one_of("cities"),
        "number": lambda: match(rf"(\d+) {street}" if item.language == "en" else rf"{street} ?(\d+)"),
        "apartment": lambda: match(r"(?:(?<=Apartment )|(?<=\d号))\d{3}|\d{3}(?=호)"),
        "postcode": lambda: match(r"(?<!\d)(\d{5,6})(?!\d)"),
        "phone": lambda: match(r"555-\d{4}"),
    }
    asked = re.findall(r'^"(\w+)" ?[(（](text|number|文本|数字|문자열|숫자)', item.prompt, flags=re.MULTILINE)
    return _fields(asked, {key: found[key]() for key, _ in asked})


def report_figure(item: Item) -> Key:
    text = words("report-figure", item.language)
    *report, question = item.prompt.splitlines()

    def place(line: str) -> tuple[str, ...]:
        found = []
        for name in ("regions", "quarters", "metrics"):
            [word] = [w for w in text[name] if w.lower() in line.lower()]
            found.append(word)
        return tuple(found)

    asked = place(question)
    values = [re.findall(r"\d{3,}", line)[-1] for line in report if re.search(r"\d{3}", line) and place(line) == asked]
    return Number(value=values[-1])


def _fields(asked: list[tuple[str, str]], answer: dict[str, str]) -> Fields:
    numbers = {key for key, kind in asked if kind in ("number", "数字", "숫자")}
    return Fields(
        texts={k: v for k, v in answer.items() if k not in numbers},
        numbers={k: v for k, v in answer.items() if k in numbers},
    )


SOLVERS = {
    "arithmetic": arithmetic,
    "copying": copying,
    "order-total": order_total,
    "shortest-route": shortest_route,
    "delay-reason": delay_reason,
    "order-fields": order_fields,
    "address-fields": address_fields,
    "report-figure": report_figure,
}
