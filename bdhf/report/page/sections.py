"""Drawings -> the sections of the page: figures under headings, and the choices of the reader."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from bdhf.records import AXES
from bdhf.report.page import svg
from bdhf.report.page.drawing import SCALES, Drawing

#: With more figures than this, the groups of a section are folded.
_MOST_SHOWN = 6


@dataclass(frozen=True)
class PageFigure:
    """A drawing in the page."""

    drawing: Drawing
    svg: svg.Svg
    caption: str  # without the sentences that the section shares

    @property
    def element(self) -> Markup:
        """The inline SVG; matplotlib and `svg` have escaped every name in it."""
        return Markup(self.svg.inline)

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its files; the default scale also has a file with the name of the axis."""
        name, view = self.drawing.name, self.drawing.view
        short = [name.removesuffix(f"_{view.scale}")] if view and view.is_default else []
        return tuple(f"{each}.svg" for each in (*short, name))

    @property
    def is_hidden(self) -> bool:
        """Whether it is shown only on demand; without scripts it is never shown."""
        return self.drawing.view is not None and not self.drawing.view.is_default


@dataclass(frozen=True)
class Group:
    """Figures of a group; with a title they are folded, except for the first group."""

    title: str
    figures: tuple[PageFigure, ...]


@dataclass(frozen=True)
class Section:
    """The figures under one heading, and the sentences that all their captions share."""

    title: str
    figures: tuple[PageFigure, ...]
    caption: str

    @property
    def anchor(self) -> str:
        """Its id in the page; no figure has the same id."""
        return "figures-" + re.sub(r"\W+", "-", self.title.lower())

    @property
    def groups(self) -> tuple[Group, ...]:
        """The figures; if they are many, by the groups of their drawings."""
        names = list(dict.fromkeys(figure.drawing.group for figure in self.figures))
        if len(self.figures) <= _MOST_SHOWN or len(names) < 2:
            return (Group("", self.figures),)
        return tuple(
            Group(name, tuple(f for f in self.figures if f.drawing.group == name)) for name in names
        )

    @property
    def choices(self) -> Mapping[str, Mapping[str, str]]:
        """The choices of the reader: "axis" and "scale", each key -> text."""
        views = [f.drawing.view for f in self.figures if f.drawing.view is not None]
        if not views:
            return {}
        axes = dict.fromkeys(view.axis for view in views)
        drawn_scales = {view.scale for view in views}
        scales = [scale for scale in SCALES if scale in drawn_scales]
        return {
            "axis": {axis: AXES[axis][1] for axis in axes},
            "scale": {scale: SCALES[scale] for scale in scales},
        }

    @property
    def chosen(self) -> tuple[str, ...]:
        """The axis and the scale that are shown first."""
        views = [f.drawing.view for f in self.figures if f.drawing.view is not None]
        return (views[0].axis, views[0].scale) if views else ()


def sections(drawings: Mapping[str, tuple[Drawing, ...]]) -> tuple[Section, ...]:
    """Draw the figures, and move shared sentences of captions to their section."""
    return tuple(_section(title, group) for title, group in drawings.items())


def _section(title: str, group: tuple[Drawing, ...]) -> Section:
    others = [drawing.caption for drawing in group[1:]]
    shared = [s for s in group[0].caption if others and all(s in c for c in others)]
    figures = tuple(
        PageFigure(
            drawing,
            svg.to_svg(drawing.figure, drawing.name, drawing.alt),
            " ".join(s for s in drawing.caption if s not in shared),
        )
        for drawing in group
    )
    return Section(title, figures, " ".join(shared))
