"""Backend ``openai``: any server with an OpenAI-compatible API, asked over HTTP."""

from __future__ import annotations
