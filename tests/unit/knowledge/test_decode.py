"""Text without a declared charset is Windows-1252, unless it is clearly in another; with one, it is decoded as browsers do."""

from __future__ import annotations

import pytest

from agno_workers.knowledge.readers.decode import decode

WESTERN = {
    "German": "Die Tür ist zwei Meter groß und aus Holz gemacht. Für die Gäste gibt es Brötchen, Käse und süße Äpfel; Übernachtungen kosten 5 €.",
    "French": "L’été à la plage, où l’œuvre brûlée a été créée, les élèves reçoivent déjà un gâteau à Noël. Ça coûte 5 €, là-bas, très cher.",
    "Spanish": "El niño comió piña mañana por la mañana. ¿Dónde está el señor Núñez? ¡Qué lástima! La canción de José fue la última del año.",
    "Portuguese": "São João não é só coração: avó às três da manhã, à mãe. A informação sobre a situação das regiões está à disposição de vocês.",
    "Italian": "La città è più bella così: perché non c’è nessuno lunedì? Può darsi che Nicolò andrà a Forlì, dov’è già tutto pronto. Virtù e libertà.",
    "Catalan": "Introduïu una hora vàlida. Això és el que passa quan la raó d’una acció no és clara: l’àvia Núria viu a València des del maig.",
    "Dutch": "De coöperatie in België heeft één goed idee, en de financiële reünie is geïnspireerd door zeeën en drieën. Hè, dat hè je zo.",
    "Swedish": "På morgonen är räkorna på ön ännu råa. Då får du äta smörgås, blåbär och ägg, så länge någon går över ån.",
    "Danish": "Æblerne på øen er røde, og børnene får smørrebrød på vejen. Så må vi gå, før høsten når åen.",
    "Norwegian": "Blåbærene på øya er små, og været blir bedre når våren kommer. Du får kjøpe brød og kjøtt på lørdag, så går vi på tur.",
    "Finnish": "Hyvää päivää! Älä syö tätä leipää, se on jäänyt pöydälle yöksi. Äiti lähtee töihin, isä jää tänään mökille.",
    "Icelandic": "Það er gott veður í Reykjavík og allir fara út að ganga. Þórður sá mörg fjöll, og síðan kom snjór á Ísafirði og Þingvöllum.",
    "English": "It’s a café – “naïve”, he said… The résumé costs £5 or €6, at 30 °C, ½ of it © 2020, § 5.",
    "Capitals": "MÜNCHEN KÖLN DÜSSELDORF STRASSE GRÜN. ÉCOLE ÉTÉ FRANÇAIS. AÇÃO NAÇÃO SÃO NÃO. ESPAÑA CANCIÓN. ÅNGSTRÖM TÄLLÄ ÆØÅ.",
}  # fmt: skip
OTHERS = {
    "Polish windows-1250": "Zażółć gęślą jaźń: w Łodzi już się ściemnia, a pociąg do Gdańska odjeżdża o siódmej. Proszę kupić świeży chleb, śmietanę i żółty ser.",
    "Polish iso-8859-2": "Zażółć gęślą jaźń: w Łodzi już się ściemnia, a pociąg do Gdańska odjeżdża o siódmej. Proszę kupić świeży chleb, śmietanę i żółty ser.",
    "Czech windows-1250": "Příliš žluťoučký kůň úpěl ďábelské ódy. Dům u řeky má červenou střechu a děti běží přes most do školy, kde je čeká učitelka.",
    "Slovak windows-1250": "Ťažký vôl sa kŕmi ďatelinou, kým dážď neustane. Večer prídu priatelia na večeru, prinesú koláče a budeme sa rozprávať o výlete.",
    "Hungarian windows-1250": "Árvíztűrő tükörfúrógép. Az őszi erdőben hűvös szél fúj, a gyerekek gyűjtik a leveleket, és később forró levest esznek.",
    "Croatian windows-1250": "Čovjek je kupio žuti đačić na tržnici, a djeca su pošla kući. Sljedeći tjedan bit će još više snijega, kažu stručnjaci što prate vrijeme.",
    "Russian windows-1251": "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Russian koi8-r": "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ukrainian windows-1251": "Щастя приходить до тих, хто його шукає: їжак з’їв яблуко під ґанком.",
    "Bulgarian windows-1251": "Жълтата дюля беше щастлива, че пухът, който цъфна, замръзна като гьон.",
    "Greek windows-1253": "Η θάλασσα είναι ήρεμη το πρωί και οι ψαράδες γυρίζουν στο λιμάνι.",
    "Turkish windows-1254": "Şişli’de yağmur yağıyor, çocuklar ağacın altında bekliyor. İstanbul’un ışıkları akşam olunca yanar, kış geldiğinde deniz soğuk olur.",
    "Hebrew windows-1255": "הים שקט בבוקר והדייגים חוזרים אל הנמל עם הדגים.",
    "Arabic windows-1256": "البحر هادئ في الصباح والصيادون يعودون إلى الميناء.",
    "Lithuanian windows-1257": "Įlinkdama fechtuotojo špaga sublykčiojusi pragręžė apvalų arbūzą. Vaikai šiąnakt miegos žvaigždžių šviesoje, o rytą grįš į mokyklą.",
    "Thai cp874": "ทะเลเงียบสงบในตอนเช้า และชาวประมงกำลังกลับมาที่ท่าเรือ",
    "Japanese shift_jis": "朝の海は静かで、漁師たちは港に戻ってくる。魚をたくさん買いました。",
    "Japanese euc-jp": "朝の海は静かで、漁師たちは港に戻ってくる。魚をたくさん買いました。",
    "Japanese iso-2022-jp": "朝の海は静かで、漁師たちは港に戻ってくる。",
    "Korean euc-kr": "아침 바다는 고요하고 어부들은 항구로 돌아온다. 생선을 많이 샀다.",
    "Chinese gbk": "早晨的大海很平静，渔民们正在返回港口。他们带回了很多鱼。",
    "Chinese big5": "早晨的大海很平靜，漁民們正在返回港口。他們帶回了很多魚。",
}  # fmt: skip
ROWS = (
    ("Name;Ort", "Müller;München", "Schäfer;Köln", "Weiß;Düsseldorf", "Jäger;Görlitz", "Groß;Fürth"),
    ("nom,ville", "Zoé,Besançon", "Noël,Béziers", "Chloé,Orléans", "François,Alès", "Hélène,Évreux"),
    ("nombre;ciudad", "José;Málaga", "Íñigo;Logroño", "Núñez;Cádiz", "Peña;León", "Ángel;Córdoba"),
    (
        "nome;cidade",
        "João;São Paulo",
        "Conceição;Goiânia",
        "Inês;Maceió",
        "Antônio;Brasília",
        "Fábio;Curaçao",
    ),
    ("nome,città", "Nicolò,Forlì", "Niccolò,Cantù", "Perù,più", "Mercè,Mondovì", "Andrà,Viggiù"),
    ("namn\tort", "Åsa\tMalmö", "Göran\tVästerås", "Björn\tÖrebro", "Märta\tLuleå", "Håkan\tUmeå"),
    ("navn;by", "Søren;Århus", "Bjørn;Tromsø", "Kåre;Ålesund", "Jørgen;Ærø", "Åse;Bodø"),
    ("nafn,staður", "Þórður,Ísafjörður", "Guðrún,Akranes", "Ólöf,Húsavík", "Jón,Höfn", "Ásta,Þingeyri"),
    ("Price;Size", "5 €;20 m²", "£5;30 °C", "7 €;½ m", "8 €;3 m³", "9 ¢;10 µm"),
)
PAGE = (
    '<link rel="stylesheet" href="style.css"><div class="menu"><a href="/index.html">Home</a></div>' * 20
    + "<p>%s</p>"
)


def chunks(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text) - size + 1, size // 2 + 1)]


@pytest.mark.parametrize("language", WESTERN)
def test_western_text_is_windows_1252_at_any_length(language: str) -> None:
    text = WESTERN[language]
    pieces = [
        text,
        PAGE % text,
        *text.split(),
        *(piece for size in (10, 20, 40, 80) for piece in chunks(text, size)),
    ]
    assert [piece for piece in pieces if decode(piece.encode("cp1252")) != piece] == []


def test_western_csv_is_windows_1252() -> None:
    tables = [[head, *rows[:count]] for head, *rows in ROWS for count in range(1, len(rows) + 1)]
    texts = [end.join(table) for table in tables for end in ("\n", "\r\n")]
    assert [text for text in texts if decode(text.encode("cp1252")) != text] == []


@pytest.mark.parametrize("language", OTHERS)
def test_other_text_of_some_length_is_detected(language: str) -> None:
    text, charset = OTHERS[language], language.split()[1]
    for whole in (text, "\r\n".join([text] * 3), PAGE % text):
        assert decode(whole.encode(charset)) == whole


@pytest.mark.parametrize(
    ("content", "declared", "text"),
    [
        ("①㈱髙橋商店".encode("cp932"), "Shift_JIS", "①㈱髙橋商店"),
        ("①㈱髙橋商店".encode("cp932"), "x-sjis", "①㈱髙橋商店"),
        ("日本語".encode("cp932") + b"\x81 " + "会社案内".encode("cp932"), "shift_jis", "日本語\ufffd 会社案内"),
        ("日本".encode("euc_jp") + b"\xad\xa1\xad\xea\xfc\xe2", "euc-jp", "日本①㈱髙"),
        (b"\x1b$BF|K\\-!-j|b\x1b(B ok", "iso-2022-jp", "日本①㈱髙 ok"),
        (b"\x1b(I1234\x1b(B", "csISO2022JP", "ｱｲｳｴ"),
        ("똠방각하 펲시콜라".encode("cp949"), "ks_c_5601-1987", "똠방각하 펲시콜라"),
        ("鎔朱镕基 㐀".encode("gb18030"), "gb2312", "鎔朱镕基 㐀"),
        (b"\x80 5 " + "元".encode("gbk"), "gbk", "€ 5 元"),
        ("廣東話嘅".encode("big5hkscs"), "big5", "廣東話嘅"),
        ("“Größe” 5 €".encode("cp1252"), "latin1", "“Größe” 5 €"),
        ("“Größe” 5 €".encode("cp1252"), "us-ascii", "“Größe” 5 €"),
        ("Şişli ığ".encode("cp1254"), "iso-8859-9", "Şişli ığ"),
        ("ไทย".encode("cp874"), "tis-620", "ไทย"),
        ("Grüße".encode("cp850"), "cp850", "Grüße"),
        ("Привет".encode("mac_cyrillic"), "x-mac-cyrillic", "Привет"),
        ("Привет".encode("utf-16-le"), "utf-16", "Привет"),
        (b"plain", "utf-16", "plain"),
        ("联通".encode("gbk"), "gbk", "联通"),
        ("Größe".encode(), "windows-1250", "Größe"),
        ("Größe".encode("cp1252"), "utf-8", "Größe"),
        ("Größe und Länge".encode() + b"\xe9", "utf-8", "Größe und Länge\ufffd"),
        ("Größe, Länge, Höhe und Übermaß".encode() + b" \xe9 ok", None, "Größe, Länge, Höhe und Übermaß \ufffd ok"),
        (b"caf\xe9", "unknown-8bit", "café"),
        (b"caf\xe9", "base64", "café"),
        ("Łódź".encode("utf-16"), "iso-8859-1", "Łódź"),
        ("a\ufffdb".encode(), None, "a\ufffdb"),
        (b"\x93quoted\x94", None, "“quoted”"),
    ],
)  # fmt: skip
def test_declared_charset_is_decoded_as_in_browsers(content: bytes, declared: str | None, text: str) -> None:
    assert decode(content, declared) == text
