"""Conversations in which facts change, made by rule: what was so, and much later what is so instead.

A fact comes back in other words ("I moved to Porto") as often as in the same ("I live in Porto now"), among
other talk. No sentence is taken from a data set.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from faissbase.memory.ranked import Turn

_START = datetime(2024, 1, 8, 18, tzinfo=timezone.utc)
_SESSION_TURNS = 10
# question | what was so | the same with another value | the change in other words | values
_FACTS = """
Where do I live? | I live in {}. | I live in {} now. | I moved to {} last month. | Lyon, Porto, Graz, Turku
Where do I work? | I work at {}. | I work at {}. | I left the company and started at {}. | Nordwind, Halcyon, Brightpath, Ferrum
What is my job? | I am a {} by profession. | My job is {}. | I retrained and became a {}. | welder, librarian, nurse, surveyor
What is my phone number? | My phone number is {}. | My phone number is {}. | I got a new number, it's {}. | 555 0117, 555 0182, 555 0164, 555 0139
What is my favourite colour? | My favourite colour is {}. | My favourite colour is {} these days. | I got tired of that colour, I like {} best. | teal, maroon, ochre, violet
What car do I drive? | I drive a {}. | I drive a {} now. | I sold the car and bought a {}. | Corolla, Golf, Clio, Octavia
What diet do I follow? | I follow a {} diet. | I follow a {} diet. | I gave that up and went {}. | vegetarian, keto, vegan, paleo
Who am I dating? | I'm dating {}. | I'm dating {}. | We broke up, and I'm seeing {}. | Priya, Jonas, Amara, Felix
Who is my doctor? | My doctor is Dr {}. | My doctor is Dr {}. | I switched to Dr {}, she has more time. | Okafor, Lindqvist, Moreau, Tanaka
Which gym do I go to? | I go to the gym called {}. | The gym I go to is {}. | I cancelled my membership and joined {}. | Ironworks, Pulse, Basecamp, Summit
Which language am I learning? | I'm learning {}. | I'm learning {} now. | I dropped the course and took up {}. | Polish, Korean, Swahili, Welsh
When is our weekly meeting? | Our weekly meeting is on {}. | The weekly meeting is on {}. | The weekly sync was rescheduled to {}. | Monday, Thursday, Wednesday, Friday
Who is my boss? | My boss is {}. | My boss is {}. | {} took over as my manager. | Ingrid, Mateo, Sunita, Declan
What laptop do I use? | I use a {} laptop. | I use a {} laptop. | My old machine died, so I replaced it with a {}. | ThinkPad, Zenbook, Framework, Latitude
Which school does my son go to? | My son goes to {}. | My son goes to {}. | My son changed schools, he attends {}. | Hillcrest, Saint Brendan, Oakfield, Riverside
When is the report due? | The report is due on the {}. | The report is due on the {}. | They extended the deadline of the report to the {}. | 4th, 11th, 19th, 27th
What is the budget for the kitchen? | The kitchen budget is {} euros. | The kitchen budget is {} euros. | We raised the budget for the kitchen to {} euros. | 8000, 9500, 12000, 14000
How do I take my coffee? | I take my coffee {}. | I take my coffee {}. | My dentist complained, so I drink coffee {} from here on. | with sugar, black, with oat milk, with honey
When does my flight leave? | My flight leaves at {}. | My flight leaves at {}. | The airline rescheduled my flight to {}. | 6:40, 9:15, 14:30, 21:05
Which bank do I use? | I use {} as my bank. | My bank is {}. | I closed the account and opened one at {}. | Postbank, Nordea, Lloyds, Monzo
How much do I weigh? | I weigh {} kilos. | I weigh {} kilos. | I lost some weight, the scales say {} kilos. | 92, 88, 81, 77
What instrument do I play? | I play the {}. | I play the {} now. | I traded my instrument for a {}. | banjo, oboe, accordion, viola
What is my email address? | My email address is {}. | My email address is {}. | That mailbox is closed, write to {} instead. | kit@post.example, kit@mail.example, k2@web.example, kit@home.example
Where does my sister live? | My sister lives in {}. | My sister lives in {}. | My sister relocated to {}. | Bergen, Split, Cork, Ghent
Which team do I play for? | I play for the {}. | I play for the {}. | I transferred to the {} in spring. | Herons, Badgers, Comets, Anchors
What time do I get up? | I get up at {}. | I get up at {}. | My shift changed, so my alarm rings at {}. | 5:30, 6:15, 7:00, 8:20
What medication do I take? | I take {}. | The medication I take is {}. | My prescription was changed to {}. | Lisinopril, Metoprolol, Amlodipine, Losartan
Who looks after my cat? | {} looks after my cat. | {} looks after my cat. | The old sitter quit, and {} feeds my cat instead. | Olga, Pierre, Yuki, Brandon
"""  # noqa: E501
_TALK = (
    "It rained the whole weekend here.",
    "I watched a film about lighthouses yesterday.",
    "My neighbour is renovating again, the noise is awful.",
    "I burnt the rice today.",
    "There was a long queue at the post office.",
    "I finally fixed the squeaking door.",
    "The train was late again this morning.",
    "I found an old photo album in the attic.",
)
_REPLIES = ("Thanks for telling me.", "Good to know!", "I see.", "Got it, anything else?", "How interesting!")


@dataclass(frozen=True, slots=True)
class Change:
    """A question with the ids of the turn that was true and of the one that is."""

    question: str
    old: str
    new: str
    in_other_words: bool


@dataclass(frozen=True, slots=True)
class Changing:
    """A conversation of "user" and "assistant", and what changes in it."""

    turns: Sequence[Turn]
    changes: Sequence[Change]


def conversations(seed: int, n: int = 8) -> list[Changing]:
    """``n`` conversations with every fact; half of the changes come in other words."""
    return [_conversation(random.Random(f"{seed} {number}"), number) for number in range(n)]


def _conversation(rng: random.Random, number: int) -> Changing:
    before: list[tuple[str, str]] = []
    after: list[tuple[str, str]] = []
    changes: list[Change] = []
    for place, line in enumerate(_FACTS.strip().splitlines()):
        question, was, same, other, listed = (cell.strip() for cell in line.split(" | "))
        old, new = rng.sample([value.strip() for value in listed.split(",")], 2)
        in_other_words = (place + number) % 2 == 0
        before.append((f"old-{place}", was.format(old)))
        after.append((f"new-{place}", (other if in_other_words else same).format(new)))
        changes.append(Change(question, f"old-{place}", f"new-{place}", in_other_words))
    for part in (before, after):
        part.extend((f"talk-{part is after}-{place}", text) for place, text in enumerate(_TALK))
        rng.shuffle(part)
    return Changing(_spoken(rng, before + after), changes)


def _spoken(rng: random.Random, said: Sequence[tuple[str, str]]) -> list[Turn]:
    turns: list[Turn] = []
    for place, (id, text) in enumerate(said):
        session, minute = divmod(2 * place, _SESSION_TURNS)
        at = _START + timedelta(days=9 * session, minutes=minute)
        turns.append(Turn(id, text, "user", f"{session}", at))
        turns.append(Turn(f"reply-{place}", rng.choice(_REPLIES), "assistant", f"{session}", at))
    return turns
