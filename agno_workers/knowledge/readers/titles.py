"""Titles that a program invented: `untitled`, `Microsoft Word - x.docx`, `Document1`. A heading or the name of the file says more."""

from __future__ import annotations

import re

_INVENTED = re.compile(
    r"""
      [\W_]* | (?:untitled|unnamed|unbenannt|ohne\ titel|sans\ titre|sans\ nom|sin\ t[ií]tulo|senza\ titolo|sem\ t[ií]tulo|naamloos|bez\ tytu[łl]u
        |без\ имени|без\ названия|無題|无标题|제목\ 없음)(?:[\s_-]*(?:document|page|presentation|spreadsheet|notebook|drawing|form|dokument))?[\s_-]*\(?\d*\)?
    | (?:microsoft\ )?(?:word|powerpoint|excel|office|visio|publisher)(?:[\s-]*(?:document|presentation|präsentation|worksheet|workbook|template|dokument))?\d*
    | (?:présentation|presentación|presentazione|apresentação\ do|document|dokument)\ (?:microsoft\ )?(?:powerpoint|word)
    | (?:new\ |neues\ )?(?:document|dokument|documento|presentation|präsentation|présentation|presentazione|spreadsheet|workbook|book|mappe|classeur
        |sheet|tabelle|page|seite|slide|folie|template|scan|scanned\ document|print|layout|pdf|html|file|notebook|drawing|title|titel|titre)[\s_-]*\d*
        (?:\s*\(\d+\)|\s*of\s*\d+)?
    | (?:click\ to\ (?:edit|add)\ (?:master\ )?title(?:\ style)?) | (?:react|vite|vue|nuxt|next)\ app | my\ (?:document|page|site|website|presentation)
    | (?:\(?\ ?(?:anonymous|unspecified|unknown|none|null|undefined|no\ title|n/a|tbd)\ ?\)?) | about:blank | index | home | default
    """,
    re.IGNORECASE | re.VERBOSE,
)
_PRINTED = re.compile(
    r"microsoft\ (?:office\ )?(?:word|powerpoint|excel|publisher|visio|outlook)\s*[-–]\s.*", re.IGNORECASE
)
_FILE = re.compile(
    r"(?:[\w.-]+:)?[^\n?!]*\.(?:docx?|docm|dotx?|rtf|odt|ott|pptx?|odp|xlsx?|xlsm|ods|csv|pdf|eps|dvi|indd|qxd|qxp|vsdx?|wpd|tmp)"
    r"|[^\s?!]*\.(?:ps|tex|ltx|pmd|fm|pub|pages|key|txt|md|html?|epub|ai|cdr|dwg|tiff?|jpe?g|png)",
    re.IGNORECASE,
)


def best(*titles: str | None) -> str | None:
    """Return the first title that nobody invented; None if there is none."""
    return next((title for title in titles if title and not is_invented(title)), None)


def is_invented(title: str) -> bool:
    """Return whether a title says nothing about the document, or is the name of a file."""
    text = " ".join(title.split())
    return bool(
        _INVENTED.fullmatch(text) or _PRINTED.fullmatch(text) or (len(text) <= 200 and _FILE.fullmatch(text))
    )
