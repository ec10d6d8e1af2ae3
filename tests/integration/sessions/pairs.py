"""One hundred pairs of facts: what is known, what is said next, what a model makes of it, and what must become of the two.

Outcomes: `superseded` (the old one is closed), `told` (both stay, and the reader is told that they contradict), `kept` (both stay, and they do
not contradict), `same` (one stays), `dropped` (the new one is not kept).
"""

from __future__ import annotations

from typing import NamedTuple


class Pair(NamedTuple):
    known: str
    said: str
    action: str
    confidence: float
    outcome: str


_SUPERSEDED = """
Ann lives in Berlin.|Ann moved to Lisbon in May.
Ann works at Siemens.|Ann left Siemens and works at Bosch.
Ann is single.|Ann got married in June.
Ann's phone is a Pixel 6.|Ann replaced the Pixel 6 by a Pixel 9.
Ann drives a Golf.|Ann sold the Golf and has no car.
Ann's dog is called Rex.|Rex died, and Ann has no dog.
Ann is learning Spanish.|Ann stopped Spanish and learns Greek.
Ann eats meat.|Ann has become a vegetarian.
Ann smokes.|Ann stopped smoking in March.
Ann's manager is Bob.|Ann's manager is Carla now.
The project's deadline is 1 May.|The project's deadline was moved to 15 June.
Ann's team uses Jira.|Ann's team switched to Linear.
Ann's office is in room 12.|Ann's office moved to room 40.
Ann prefers long answers.|Ann asks for short answers from now on.
Ann uses a Windows laptop.|Ann got a Mac and gave the Windows laptop back.
Ann's son is in kindergarten.|Ann's son started school.
Ann plans a trip to Rome.|Ann cancelled the trip to Rome.
Ann's favourite editor is Vim.|Ann now prefers Helix over Vim.
The server runs Postgres 15.|The server was upgraded to Postgres 18.
Ann's flight leaves at 9:00.|Ann's flight was moved to 11:30.
Ann trains for a marathon.|Ann ran the marathon and stopped the training.
Ann has a broken arm.|Ann's arm has healed.
Ann's budget is 500 euros.|Ann raised the budget to 800 euros.
Ann's address ends with 12a.|Ann's new address ends with 7.
Ann is on call this week.|Ann's week on call is over.
Ann's bank is N26.|Ann changed the bank to ING.
The shop opens at 8.|The shop opens at 10 since the renovation.
Ann's surname is Miller.|Ann took the surname Berg.
Ann wants to buy a house.|Ann bought a house in Mainz.
Ann writes in British spelling.|Ann asked to write in American spelling.
"""
_TOLD = """
Ann likes coffee.|Ann said that coffee is not for her.
Ann was born in 1990.|Ann mentioned a birthday in 1991.
Ann has two brothers.|Ann spoke of a third brother.
Ann's cat is black.|Ann described a grey cat.
Ann works from home.|Ann complained about the way to the office.
Ann does not drink.|Ann ordered a wine list.
Ann's allergy is to nuts.|Ann asked for a cake with nuts.
The meeting is on Monday.|Somebody wrote that the meeting is on Tuesday.
Ann's size is 38.|Ann ordered shoes of size 40.
Ann speaks no French.|Ann wrote a sentence in French.
Ann's colour is blue.|Ann chose red for the room.
Ann is an only child.|Ann bought a present for a sister.
Ann has no children.|Ann asked for a school near her.
Ann's time zone is CET.|Ann's calendar is in PST.
The budget has a limit.|Ann said that money does not matter.
Ann hates running.|Ann asked for running shoes.
Ann's car is electric.|Ann asked for the price of petrol.
The server is in Frankfurt.|A log names a server in Dublin.
Ann wakes up at six.|Ann wrote that she sleeps until nine.
Ann pays by card.|Ann asked where to withdraw cash.
Ann's mother lives in Ulm.|Ann visits her mother in Graz.
Ann votes for nobody.|Ann praised a party.
Ann's contract ends in May.|Ann has a contract until July.
Ann's birthday is in spring.|Ann invites to her birthday in October.
Ann uses dark mode.|Ann sent a screenshot in light mode.
"""
_SAME = """
Ann lives in Berlin.|Berlin is where Ann lives.
Ann likes tea.|Ann is fond of tea.
Ann has a dog.|Ann owns a dog.
Ann is a nurse.|Ann's job is nurse.
Ann plays chess.|Ann is a chess player.
Ann's daughter is Eva.|Eva is Ann's daughter.
Ann runs every day.|Each day, Ann goes running.
Ann uses Python.|Ann programs in Python.
Ann is from Norway.|Norway is Ann's home country.
Ann has asthma.|Ann suffers from asthma.
Ann reads at night.|At night, Ann reads.
Ann flies on Friday.|Friday is the day of Ann's flight.
Ann is vegan.|Ann eats nothing from animals.
Ann likes jazz.|Jazz is Ann's music.
Ann has a Kindle.|ANN HAS A KINDLE
"""
_KEPT = """
Ann lives in Berlin.|Ann works in Potsdam.
Ann likes tea.|Ann likes coffee in the morning.
Ann has a dog.|Ann has a cat.
Ann is a nurse.|Ann studies medicine in the evening.
Ann plays chess.|Ann plays tennis.
Ann's daughter is Eva.|Ann's son is Tom.
Ann runs every day.|Ann swims on Sunday.
Ann uses Python.|Ann uses Rust.
Ann is from Norway.|Ann's husband is from Chile.
Ann has asthma.|Ann has hay fever.
Ann reads at night.|Ann reads the paper at breakfast.
Ann flies on Friday.|Ann comes back on Tuesday.
Ann is vegan.|Ann is allergic to soy.
Ann likes jazz.|Ann likes opera.
Ann has a Kindle.|Ann has a record player.
"""
_DROPPED = """
Ann lives in Berlin.|Ann may move some day.
Ann likes tea.|Ann might like matcha.
Ann has a dog.|Ann perhaps wants a horse.
Ann is a nurse.|Ann seems to be tired.
Ann plays chess.|Ann may know a grandmaster.
Ann's daughter is Eva.|Eva may be tall.
Ann runs every day.|Ann probably has good shoes.
Ann uses Python.|Ann may have heard of Zig.
Ann is from Norway.|Ann may like snow.
Ann has asthma.|Ann may avoid dust.
Ann reads at night.|Ann may sleep late.
Ann flies on Friday.|Ann may fear flying.
Ann is vegan.|Ann may like tofu.
Ann likes jazz.|Ann may like blues.
Ann has a Kindle.|Ann may have read Proust.
"""


def _pairs(text: str, ways: list[tuple[str, float]], outcome: str) -> list[Pair]:
    lines = [line.split("|") for line in text.strip().splitlines()]
    return [Pair(known, said, *ways[place % len(ways)], outcome) for place, (known, said) in enumerate(lines)]


PAIRS = [
    # A contradiction of which the model is sure closes the old one, too.
    *_pairs(_SUPERSEDED, [("supersedes", 0.8), ("supersedes", 0.95), ("contradicts", 0.9)], "superseded"),
    *_pairs(_TOLD, [("contradicts", 0.6), ("supersedes", 0.79), ("contradicts", 0.5)], "told"),
    *_pairs(_SAME, [("same", 0.9), ("same", 0.6)], "same"),
    *_pairs(_KEPT, [("add", 0.9), ("add", 0.5), ("supersedes of a made up id", 0.9)], "kept"),
    *_pairs(_DROPPED, [("add", 0.4), ("supersedes", 0.3), ("contradicts", 0.49)], "dropped"),
]
