"""A chatbot that remembers: python examples/chatbot_with_memory.py [DATABASE]

Runs offline. It answers from its memory instead of asking a language model; where your model goes is marked.
What you tell it is there the next time: it is kept in the file DATABASE, memory.db by default.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from faissbase.memory import ContextMemory

CONVERSATION = "me and the bot"


def reply_to(memory: ContextMemory, question: str) -> str:
    """The bot's answer, from what it has been told."""
    found = memory.search_turns(question, CONVERSATION, limit=3, speaker="user", asker="user")
    told = [turn["content"] for turn in found["results"] if not turn["content"].endswith("?")]
    # With a language model: send it the question after these lines of context, and return what it says.
    return f"You told me: {told[0]}" if told else "You have not told me yet."


def chat(memory: ContextMemory, lines: Iterable[str]) -> Iterable[str]:
    """One answer for each line."""
    for line in lines:
        answer = reply_to(memory, line) if line.endswith("?") else "I will remember that."
        memory.add(
            [{"role": "user", "content": line}, {"role": "assistant", "content": answer}], CONVERSATION
        )
        yield answer


def main() -> None:
    """Talk on the terminal; an empty line ends it."""
    with ContextMemory(sys.argv[1] if len(sys.argv) > 1 else "memory.db") as memory:
        print('Tell me something, or ask me ("..?"). An empty line ends it.')
        for answer in chat(memory, iter(lambda: input("> ").strip(), "")):
            print(answer)


if __name__ == "__main__":
    main()
