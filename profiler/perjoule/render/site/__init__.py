"""The static site of a published folder: pages that need nothing else, for a browser of any width, light or dark."""

from __future__ import annotations

from perjoule.render.site.pages import Page, pages

__all__ = ["Page", "pages"]
