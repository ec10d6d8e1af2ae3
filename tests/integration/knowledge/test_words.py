"""Keyword search finds names, numbers and languages that Postgres's parser does not split into words."""

from __future__ import annotations

import pytest

from agno_workers.knowledge.store.search import Search
from agno_workers.knowledge.store.search_index import SearchIndex
from agno_workers.knowledge.words import VERSION
from tests.database import RunDatabase
from tests.ingesting import Shelf

BOOKS = {
    "ticket": "The login fails since JIRA-5678 was merged.",
    "ticket2": "The logout fails since JIRA-9012 was merged.",
    "file": "See annual_report_2023.pdf for the figures.",
    "capitals": "Open QuarterlyReview.xlsx and src/UserProfile.tsx please.",
    "script": "JavaScript runs in browsers.",
    "size": "The bolt has 3.5mm and weighs 10kg.",
    "path": "Edit /etc/nginx/conf.d/default.conf and restart.",
    "windows": "It is in C:\\Users\\Ann\\holiday-notes.txt now.",
    "host": "The replica is db1.prod.example.com:5433.",
    "mail": "Write to ann.smith@example.org first.",
    "version": "Fixed in v2.10.3 and in 15.4-rc1.",
    "version2": "Fixed in v3.1.10 and in 2.16.",
    "address": "It listens on 192.168.17.4 only.",
    "number": "It cost 1,234,567 euros.",
    "code": "Call std::vector<QueueItem> or os.path.join there.",
    "cpp": "We write C++ here.",
    "c": "We write C here.",
    "csharp": "We write C# here.",
    "fsharp": "We write F# here.",
    "dotnet": "We use .NET here.",
    "asp": "We use ASP.NET there.",
    "net": "We use a net here.",
    "node": "We use node.js here.",
    "company": "AT&T has an R&D department, says O'Reilly.",
    "jose": "José signed it.",
    "jose2": "Jose signed another.",
    "german": "Der Straßenbau in Łódź ruht, die Häuser stehen.",
    "vietnamese": "Nguyễn lives in Đà Nẵng.",
    "russian": "Ёлка стоит в углу.",
    "arabic": "هذا كِتَاب جديد",
    "japanese": "私は東京都に住んでいます。猫が好きです。",
    "chinese": "水泵每年春天检查一次。",
    "korean": "서울에서 회의를 했습니다.",
    "thai": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย",
    "persian": "من می‌خواهم بروم",
    "hindi": "यह हिन्दी पुस्तक है",
    "emoji": "Deployed 🚀 by 👩‍💻 today✅",
    "wide": "The model ＡＢＣ１２３ and the ﬁlter.",
}
FOUND = {
    "JIRA-5678": "ticket", "jira 5678": "ticket", "5678": "ticket", "jira5678": "ticket", "JIRA-9012": "ticket2",
    "annual_report_2023.pdf": "file", "annual report": "file", "report": "file", "annual-report": "file", "2023": "file",
    "quarterly review": "capitals", "QuarterlyReview": "capitals", "profile": "capitals", "3.5 mm": "size", "10 kg": "size",
    "/etc/nginx": "path", "nginx": "path", "default.conf": "path", "conf.d": "path",
    "holiday-notes.txt": "windows", "notes": "windows", "holiday": "windows",
    "db1": "host", "prod.example.com": "host", "replica prod": "host", "5433": "host", "db1.prod": "host",
    "ann.smith@example.org": "mail", "ann.smith": "mail", "smith": "mail", "example.org": "mail",
    "v2.10.3": "version", "2.10.3": "version", "2.10": "version", "rc1": "version", "15.4": "version",
    "192.168.17.4": "address", "192.168.17": "address", "1234567": "number", "1,234,567": "number",
    "vector": "code", "std::vector": "code", "QueueItem": "code", "os.path": "code", "join": "code",
    "C++": "cpp", "c++?": "cpp", "(C++)": "cpp", "C#": "csharp", "F#": "fsharp", "C": "c", "csharp": "csharp",
    "node.js": "node", "nodejs": "node", "Node JS": "node", ".js": "node", ".NET": "dotnet", "dotnet": "dotnet", "ASP.NET": "asp",
    "AT&T": "company", "R&D": "company", "OReilly": "company", "reilly": "company",
    "Straßenbau": "german", "strassenbau": "german", "Lodz": "german", "Hauser": "german",
    "Nguyen": "vietnamese", "Da Nang": "vietnamese", "елка": "russian", "كتاب": "arabic",
    "東京": "japanese", "東京都": "japanese", "猫": "japanese", "住んで": "japanese",
    "水泵": "chinese", "春天检查": "chinese", "서울": "korean", "회의": "korean", "กรุงเทพ": "thai", "ประเทศ": "thai",
    "می‌خواهم": "persian", "میخواهم": "persian", "خواهم": "persian", "हिन्दी": "hindi", "ABC123": "wide", "filter": "wide",
    "🚀": "emoji", "💻": "emoji", "👩‍💻": "emoji", "✅": "emoji", "today": "emoji",
}  # fmt: skip
"""Queries, and the document that is found first."""
ALONE = {
    "C++": {"cpp"}, "C#": {"csharp"}, "F#": {"fsharp"}, "C": {"c", "windows"}, ".NET": {"dotnet", "asp"}, "node.js": {"node"},
    "José": {"jose", "jose2"}, "Jose": {"jose", "jose2"}, "東京": {"japanese"}, "春天": {"chinese"}, "net": {"net", "dotnet", "asp"},
    "Java": set(), "JavaScript": {"script"}, "5678": {"ticket"}, "210": set(), "京": {"japanese"},
}  # fmt: skip
"""Queries, and all documents that are found."""


@pytest.fixture
def shelf(db: RunDatabase) -> Shelf:
    shelf = Shelf(db)
    shelf.books = dict(BOOKS)
    shelf.run()
    return shelf


def found(shelf: Shelf, query: str) -> list[str]:
    base = shelf.knowledges.get("docs")
    return [hit.uri for hit in Search(shelf.db.pool).search(base.id, query, search_type="keyword", max_results=50)]  # fmt: skip


def wrong(shelf: Shelf) -> dict[str, list[str]]:
    results = {query: found(shelf, query) for query in FOUND | ALONE}
    first = {query: uris for query, uris in results.items() if query in FOUND and uris[:1] != [FOUND[query]]}
    return first | {query: results[query] for query, uris in ALONE.items() if set(results[query]) != uris}


def test_names_numbers_and_all_languages_are_found(shelf: Shelf) -> None:
    assert wrong(shelf) == {}


def test_index_of_a_book_is_not_the_first_result(db: RunDatabase) -> None:
    shelf = Shelf(db)
    entries = "lease renewal, 3\nlease, 7, 12\nrenewal of leases, 7\nrenewing a lease, 9\nleases, renewed, 11, 44-46"
    shelf.books = {"index": "\n\n".join([entries] * 5), "text": "A worker renews its leases every five seconds, all of them with one statement, so that a busy child does not lose its lease."}  # fmt: skip
    shelf.run()
    assert found(shelf, "how is a lease renewed")[0] == "text"
    db.sql("UPDATE agno.chunk SET weight = 1")
    assert found(shelf, "how is a lease renewed")[0] == "index"


def test_words_of_an_earlier_version_are_written_again(shelf: Shelf, db: RunDatabase) -> None:
    base = shelf.knowledges.get("docs")
    db.sql(
        "UPDATE agno.chunk SET tsv = NULL, words = NULL"
    )  # the trigger then writes what an earlier version wrote
    db.sql("UPDATE agno.knowledge SET words_version = 1")
    assert found(shelf, "login") == ["ticket"]
    assert len(wrong(shelf)) > 20
    shelf.run()
    assert shelf.tidied[-1] == base.id, "an ingestion of unchanged documents refreshes the index"
    index = SearchIndex(db.pool)
    assert index.refresh_index(base.id) == ["new words", "words"]
    assert index.refresh_index(base.id) == []
    assert wrong(shelf) == {}
    assert db.value("SELECT words_version FROM agno.knowledge") == VERSION
