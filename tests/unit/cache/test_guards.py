"""`disagreement`: what two prompts must not differ in, and what they may."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faissbase.cache.guards import REASONS, disagreement, disagreements

REFUSED = [
    ("numbers", "Is Python 3.10 supported?", "Is Python 3.1 supported?"),
    ("numbers", "Install version 1.10", "Install version 1.1"),
    ("negation", "Did both Bob and Alice come?", "Did neither Bob nor Alice come?"),
    ("negation", "sugar recipes", "sugar-free recipes"),
    ("operators", "How do I get a refund?", "How do I give a refund?"),
    ("operators", "how do i get in", "how do i get out"),
    ("operators", "Did everyone pass?", "Did someone pass?"),
    ("operators", "Does their car work?", "Does our car work?"),
    ("opposites", "What are the pros & cons of nuclear power?", "What are the pros of nuclear power?"),
    (
        "opposites",
        "What are the advantages of remote work?",
        "What are the advantages and disadvantages of remote work?",
    ),
    ("opposites", "Few people like it", "Many people like it"),
    ("opposites", "what is the capital of australia", "what is the capital of austria"),
    ("names", "what is vitamin a", "what is vitamin d"),
    ("question", "Can I take ibuprofen with alcohol?", "How do I take ibuprofen with alcohol?"),
    ("numbers", "How long do I boil 2 eggs?", "How long do I boil 3 eggs?"),
    ("numbers", "How long do I boil two eggs?", "How long do I boil three eggs?"),
    ("numbers", "How do I install version 3.11.2?", "How do I install version 3.11.4?"),
    ("numbers", "What happened on 4 March?", "What happened on 5 March?"),
    ("numbers", "What happened on 4 March?", "What happened on 4 April?"),
    ("numbers", "Who won World War I and II?", "Who won World War I and III?"),
    ("numbers", "How warm is 30 celsius?", "How warm is -30 celsius?"),
    ("numbers", "Which plants survive 5 km of wind?", "Which plants survive 5 miles of wind?"),
    ("numbers", "Is a 10k run healthy?", "Is a 10 run healthy?"),
    ("numbers", "How much is 20% off?", "How much is 30% off?"),
    ("numbers", "Which hotels cost $80?", "Which hotels cost €80?"),
    ("numbers", "Feed 3 cats and dogs?", "Feed cats and 3 dogs?"),
    ("numbers", "What is 5% in euros?", "What is 5 in euros?"),
    ("numbers", "What is $5 in yen?", "What is 5 in yen?"),
    ("numbers", "What opens at 3pm?", "What opens at 3am?"),
    ("numbers", "Which trains leave at 10:30 a.m.?", "Which trains leave at 10:30 p.m.?"),
    ("numbers", "Convert 5 km to m", "Convert 5 m to km"),
    ("numbers", "How much is 5 mL of water?", "How much is 5 ML of water?"),
    ("numbers", "How fast is 10 Mb?", "How fast are 10 MB?"),
    ("negation", "Who has cats and not dogs?", "Who has not cats and dogs?"),
    ("negation", "Tea with sugar and without milk", "Tea without sugar and with milk"),
    ("negation", "Can I freeze milk?", "Can't I freeze milk?"),
    ("negation", "How do I bake bread with yeast?", "How do I bake bread without yeast?"),
    ("negation", "Why do cats purr?", "Why do cats never purr?"),
    ("negation", "Which snakes are poisonous?", "Which snakes are not poisonous?"),
    ("negation", "Why doesn\N{RIGHT SINGLE QUOTATION MARK}t it start?", "Why does it start?"),
    ("operators", "What is 2 + 2?", "What is 2 - 2?"),
    ("operators", "What is 6 * 2", "What is 6 ÷ 2"),
    ("operators", "How do I select rows where x > 5?", "How do I select rows where x < 5?"),
    ("operators", "Is x >= 5 in this loop?", "Is x > 5 in this loop?"),
    ("operators", "What is price * 2?", "What is price / 2?"),
    ("operators", "Simplify x-y", "Simplify x/y"),
    ("operators", "What does if (ok) do?", "What does if (!ok) do?"),
    ("operators", "What does p(a|b) mean?", "What does p(b|a) mean?"),
    ("operators", "Is a => b true?", "Is b => a true?"),
    ("operators", "What does \N{THUMBS UP SIGN} mean?", "What does \N{THUMBS DOWN SIGN} mean?"),
    ("operators", "What does a && b give?", "What does a || b give?"),
    ("operators", "Which users have a house and a car?", "Which users have a house or a car?"),
    ("operators", "Is (0, 5] half open?", "Is [0, 5) half open?"),
    ("operators", "What does ls -a show?", "What does ls -l show?"),
    ("operators", "What does git reset --hard do?", "What does git reset do?"),
    ("question", "Why was the bridge built?", "When was the bridge built?"),
    ("question", "Who is Rosalind?", "Where is Rosalind?"),
    ("question", "How do I repair a kettle?", "How much does it cost to repair a kettle?"),
    ("opposites", "What are the best beaches of Crete?", "What are the worst beaches of Crete?"),
    (
        "opposites",
        "How do I increase the volume of my radio?",
        "How can I lower or reduce my radio's volume?",
    ),
    ("opposites", "Is this mushroom safe for my dog?", "Would this mushroom be unsafe for a dog?"),
    ("opposites", "Is it legal to fish here?", "Is fishing illegal here?"),
    ("opposites", "Should I stretch before a run?", "Should I stretch after a run?"),
    ("names", "How is the weather in Lisbon?", "What is the weather like in Porto?"),
    ("names", "What does parse_args return?", "What does parse_known_args return?"),
    ("names", "How do I sort a list in C++?", "How do I sort a list in C#?"),
    ("names", "Is NASA hiring?", "Is ESA hiring now?"),
    ("names", "What does gpt4o cost?", "What does gpt4 cost?"),
    (
        "roles",
        "How do I get from the station to the harbour?",
        "How do I get to the station from the harbour?",
    ),
    (
        "roles",
        "We stay in Nice. How far is it from Nice to there?",
        "We stay in Nice. How far is it from there to Nice?",
    ),
    ("operators", "Do all cats purr?", "Do some cats purr?"),
    ("operators", "Can I pay in cash?", "Must I pay in cash?"),
    ("operators", "May visitors sign the book?", "Must visitors sign the book?"),
    ("operators", "Which port has http?", "Which port has https?"),
    ("opposites", "How do I log in to my account?", "How can I log out of my account?"),
    ("opposites", "How do I sign in?", "How do I sign out?"),
    ("people", "Did she tell him the truth?", "Did he tell her the truth?"),
    ("people", "How do I know if he likes me?", "How can I tell whether she likes me?"),
    ("people", "Do you love me?", "Do I love you?"),
    ("people", "Can he see my story?", "Can I see his story?"),
    ("people", "What is my name?", "What is your name?"),
    ("people", "Who am I?", "Who are you?"),
    ("people", "How can I help you?", "How can you help me?"),
    ("time", "Who is the head of the bank?", "Who was the head of the bank?"),
    ("time", "Did it rain a lot?", "Will it rain a lot?"),
    ("time", "Which shops open this week?", "Which shops are open next week?"),
    ("time", "Show my flights of last Monday", "Show my flights of this Monday"),
    ("roles", "Was Anna hired by Google?", "Was Anna hired Google?"),
    ("replacement", "How do I wash a silk shirt?", "How do I wash a wool shirt?"),
    ("replacement", "What are the symptoms of a cold?", "What are the symptoms of a burn?"),
    ("replacement", "Is a plum sweet?", "Is an apple sweet?"),
    ("replacement", "silk shirt", "wool shirt"),
    ("opposites", "Which calls are incoming?", "How do I find outgoing calls?"),
    ("order", "Does Anna love Bob?", "Does Bob love Anna?"),
    ("order", "Is a tomato sweeter than a carrot?", "Is a carrot sweeter than a tomato?"),
    ("order", "Convert euros into pounds", "Convert pounds into euros"),
    ("order", "Tenth in 1960, eighth in 1968", "Eighth in 1960, tenth in 1968"),
    ("order", "If cats meet dogs, do the dogs win?", "If cats meet dogs, do the cats win?"),
]

SHARED = [
    ("It weighs 2.50 kg", "It weighs 2.5 kg"),
    ("gluten free bread", "gluten-free bread"),
    ("Flights from Paris to London", "Flights to London from Paris"),
    ("How much does an iPhone cost?", "What is the price of an iPhone?"),
    ("How tall is Mount Everest?", "What is the height of Mount Everest?"),
    ("What time does the store open?", "When does the store open?"),
    ("Can I reset my password online?", "How do I reset my password?"),
    ("pros/cons of nuclear power", "pros and cons of nuclear power"),
    ("How do I boil an egg?", "How can I boil eggs?"),
    ("How do I boil an egg?", "how do i boil an egg"),
    ("What is the best way to learn chess?", "How do I learn chess?"),
    ("How many is 1,000 plus 1?", "How many is 1000 plus 1?"),
    ("How heavy are twenty one bricks?", "How heavy are 21 bricks?"),
    ("How do I spend two thousand dollars?", "How can I spend 2000 dollars?"),
    ("Is World War II over?", "Is World War 2 over?"),
    ("What is the difference between guilt and shame?", "What is the difference between shame and guilt?"),
    ("Which are cleaner: cats, dogs or birds?", "Which are cleaner: birds, cats or dogs?"),
    ("What is the capital of the province?", "What is the province capital?"),
    ("On 3 May we met in Rome", "We met in Rome on 3 May"),
    ("On March 3, 2011 we met", "We met on 3 March 2011"),
    ("He quickly fixed the roof", "He fixed the roof quickly"),
    ("Is the U.S. large?", "Is the United States large?"),
    ("Is the USA a big country?", "Is America a large country?"),
    ("Do kids like films?", "Do children like movies?"),
    ("What are the reasons that bread rises?", "Why does bread rise?"),
    ("Do you like Indian trains?", "Do you like trains of India?"),
    ("What is the colour of photosynthesis?", "What is the colour of photosyntesis?"),
    ("Is it true or not that cats purr?", "Is it true that cats purr?"),
    ("Which bicycle should I buy?", "Which bicycle should I buy for a long journey?"),
    ("What is 2+2?", "what is 2 + 2"),
    ("How do I boil an egg? \N{THUMBS UP SIGN}", "How do I boil an egg?"),
    ("How much is 20% off?", "How much is 20 percent off?"),
    ("Is x ≥ 5?", "Is x>=5?"),
    ("Is 2024-05-03 a Friday?", "is 2024-05-03 a friday"),
    ("How can I learn chess?", "How can you learn chess?"),
    ("hi there", "Hello there!"),
    ("How do I improve my English?", "How do you improve your English?"),
    ("How far is 5 km?", "How far is 5 kilometers?"),
    ("How much is 5 ml of water?", "How much is 5 mL of water?"),
    ("What opens at 3pm?", "What opens at 3 p.m.?"),
    ("Why isn't my phone charging?", "Why is my phone not charging?"),
    ("How do I log in to my account?", "How can I login to my account?"),
    ("What does ls -l show?", "what does `ls -l` show"),
    ("Is it (0, 5]?", "is it (0, 5]"),
    ("Are there cats and not dogs?", "Are there cats, not dogs?"),
    ("Is the sci-fi film good - or a bore?", "Is the sci-fi film good or a bore?"),
]


@pytest.mark.parametrize(("reason", "a", "b"), REFUSED)
def test_refuses_and_names_the_reason(reason: str, a: str, b: str) -> None:
    assert reason in [found.split(":")[0] for found in disagreements(a, b)]
    assert disagreement(a, b) is not None


@pytest.mark.parametrize(("a", "b"), SHARED)
def test_lets_pass_what_only_says_it_differently(a: str, b: str) -> None:
    assert disagreement(a, b) is None


@pytest.mark.parametrize(("reason", "a", "b"), REFUSED)
def test_does_not_depend_on_which_was_stored(reason: str, a: str, b: str) -> None:
    assert reason in [found.split(":")[0] for found in disagreements(b, a)]


def test_message_says_what_differs_on_each_side() -> None:
    assert disagreement("How do I boil 2 eggs?", "How do I boil 3 eggs?") == "numbers: 2 | 3"
    assert (
        disagreement("How do I wash a silk shirt?", "How do I wash a wool shirt?")
        == "replacement: silk | wool"
    )


def test_every_reason_has_an_example_here() -> None:
    assert {reason for reason, _, _ in REFUSED} == set(REASONS)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("¿Cómo cocino un huevo?", "¿Cómo cocinar huevos?"),
        ("Wie koche ich ein Ei?", "Wie kann ich ein Ei kochen?"),
        ("如何煮鸡蛋", "怎么煮鸡蛋"),
        ("卵はどうやって茹でますか", "卵の茹で方を教えてください"),
    ],
)
def test_other_languages_may_be_phrased_differently(a: str, b: str) -> None:
    assert disagreement(a, b) is None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("¿Cómo cocino 2 huevos?", "¿Cómo cocino 3 huevos?"),
        ("Wie weit ist es bis Wien?", "Wie weit ist es bis Bern?"),
        ("Жизнь в Москве дорогая?", "Жизнь в Праге дорогая?"),
        ("如何煮2个鸡蛋", "如何煮3个鸡蛋"),
    ],
)
def test_other_languages_have_numbers_and_names(a: str, b: str) -> None:
    assert disagreement(a, b) is not None


def test_capitals_of_a_title_are_no_names() -> None:
    assert (
        disagreement("How To Bake Fresh Bread Without Strong Flour", "how to bake bread without flour")
        is None
    )


def test_one_more_word_of_a_name_is_another_name() -> None:
    assert disagreement("Where do I park in Wien?", "Where do I park in Wien Mitte?") == "names:  | mitt"


def test_a_long_prompt_takes_time_in_proportion_to_its_length() -> None:
    prompt = "Summarise this report about rivers, 12 dams and the Danube. "
    short = _seconds(prompt * 200, prompt * 200 + "please")
    long = _seconds(prompt * 1600, prompt * 1600 + "please")
    assert long < 8 * short * 6


def _seconds(a: str, b: str) -> float:
    def once() -> float:
        start = time.process_time()
        disagreement(a, b)
        return time.process_time() - start

    return min(once() for _ in range(3))


TEXTS = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            [
                "how",
                "what",
                "why",
                "do",
                "I",
                "not",
                "never",
                "from",
                "to",
                "by",
                "the",
                "Paris",
                "Rome",
                "2",
                "3,000",
                "k",
                "and",
                "or",
                ",",
                ".",
                "?",
                "km",
                "eggs",
                "cook",
                "cooked",
                "of",
                "in",
                "U.S.",
                "twenty",
                "one",
                "hundred",
                "I'm",
                "don't",
                "C++",
                "a_b",
                "-",
                "May",
                "march",
                "he",
                "her",
                "you",
                "next",
                "week",
                "was",
                "is",
                "pm",
                "mL",
                "MB",
                "-x",
            ]
        ),
        max_size=14,
    ).map(" ".join),
)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_a_prompt_never_disagrees_with_itself(text: str) -> None:
    assert list(disagreements(text, text)) == []


@settings(max_examples=600, deadline=None)
@given(TEXTS, TEXTS)
def test_is_symmetric_and_never_raises(a: str, b: str) -> None:
    forth, back = ([reason.split(":")[0] for reason in disagreements(*pair)] for pair in ((a, b), (b, a)))
    assert forth == back
    assert set(forth) <= set(REASONS)
    assert (disagreement(a, b) is None) == (not forth)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(2, 10**6))
def test_another_number_is_always_seen(text: str, number: int) -> None:
    assert disagreement(f"{text} {number} .", f"{text} {number + 1} .") is not None
