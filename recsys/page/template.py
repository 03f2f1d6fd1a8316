"""Pages from templates: one HTML file each, which needs nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template


def template(package: str, name: str, **filters: Any) -> Template:
    """A template of a package; it finds beside it ``style.html``, the look of all pages."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("recsys.page", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)
