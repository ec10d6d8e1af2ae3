"""Values of form fields and texts typed on a PDF, which are not in its drawn text."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from typing import Any

import pypdfium2  # type: ignore[import-untyped] # ships no types
import pypdfium2.raw as pdfium  # type: ignore[import-untyped] # the same

_MAX_PER_PAGE = 2_000
_HIDDEN = 0x02 | 0x20
"""Flags of annotations: hidden, and not shown on the screen."""
_PASSWORD = 1 << 13
_LINE = 18  # points
_INDEX = re.compile(r"\[\d+\]")
_CHOICES = (pdfium.FPDF_FORMFIELD_COMBOBOX, pdfium.FPDF_FORMFIELD_LISTBOX)


def fields(page: pypdfium2.PdfPage) -> Iterator[tuple[str, float]]:
    """Yield the filled fields (`name: value`) and typed texts, with the distance of their first lines from the bottom of the page in
    points. Empty fields, buttons, signatures and passwords are left out.
    """
    form = page.formenv.raw if page.formenv else None
    for at in range(min(pdfium.FPDFPage_GetAnnotCount(page.raw), _MAX_PER_PAGE)):
        if not (note := pdfium.FPDFPage_GetAnnot(page.raw, at)):
            continue
        try:
            text = "" if pdfium.FPDFAnnot_GetFlags(note) & _HIDDEN else _text(form, note)
            if text:
                area = pdfium.FS_RECTF()
                pdfium.FPDFAnnot_GetRect(note, area)
                yield text, max(area.bottom, area.top - _LINE)
        finally:
            pdfium.FPDFPage_CloseAnnot(note)


def _text(form: Any, note: Any) -> str:
    kind = pdfium.FPDFAnnot_GetSubtype(note)
    if kind == pdfium.FPDF_ANNOT_FREETEXT:
        return _string(pdfium.FPDFAnnot_GetStringValue, note, b"Contents")
    value = _value(form, note) if form and kind == pdfium.FPDF_ANNOT_WIDGET else ""
    if not value:
        return ""
    label = _string(pdfium.FPDFAnnot_GetFormFieldAlternateName, form, note)
    name = label or _INDEX.sub("", _string(pdfium.FPDFAnnot_GetFormFieldName, form, note))
    return f"{name.rstrip(':')}: {value}" if name else value


def _value(form: Any, note: Any) -> str:
    kind = pdfium.FPDFAnnot_GetFormFieldType(form, note)
    if kind == pdfium.FPDF_FORMFIELD_CHECKBOX:
        return "yes" if pdfium.FPDFAnnot_IsChecked(form, note) else "no"
    if kind == pdfium.FPDF_FORMFIELD_RADIOBUTTON and pdfium.FPDFAnnot_IsChecked(form, note):
        return _string(pdfium.FPDFAnnot_GetFormFieldExportValue, form, note)
    if kind in _CHOICES and (chosen := _chosen(form, note)):
        return chosen
    is_secret = pdfium.FPDFAnnot_GetFormFieldFlags(form, note) & _PASSWORD
    if kind in _CHOICES or (kind == pdfium.FPDF_FORMFIELD_TEXTFIELD and not is_secret):
        return _string(pdfium.FPDFAnnot_GetFormFieldValue, form, note)
    return ""


def _chosen(form: Any, note: Any) -> str:
    """Return the labels of the options that are selected."""
    return ", ".join(
        _string(pdfium.FPDFAnnot_GetOptionLabel, form, note, option)
        for option in range(pdfium.FPDFAnnot_GetOptionCount(form, note))
        if pdfium.FPDFAnnot_IsOptionSelected(form, note, option)
    )


def _string(get: Callable[..., int], *arguments: Any) -> str:
    """Call a function of pdfium that writes UTF-16 to a buffer; return the text as one line."""
    size = get(*arguments, None, 0)
    buffer = (ctypes.c_ushort * (size // 2 + 1))()
    get(*arguments, buffer, size)
    return " ".join(bytes(buffer)[: max(size - 2, 0)].decode("utf-16-le", "replace").split())
