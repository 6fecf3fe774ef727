"""Comparing results: whether it may be done, and whether one is better, worse, or not to be told apart."""

from __future__ import annotations

from perjoule.compare.fields import QUESTIONS, Question
from perjoule.compare.outcome import Outcome, compare, encode

__all__ = ["QUESTIONS", "Outcome", "Question", "compare", "encode"]
