"""An OpenAI client whose answers are cached by meaning. Runs offline: ``python examples/cached_client.py``.

A small server of this program's own answers in OpenAI's stead. For the real one, leave `local_model` out:
``openai.OpenAI()``, and an embedder that knows meaning, ``OpenAIEmbedder("text-embedding-3-small")``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai

from faissbase.cache import CachedOpenAI, SemanticCache

ANSWERS = {"capital": "Paris is the capital of France.", "eggs": "Four minutes for soft ones."}


class Model(BaseHTTPRequestHandler):
    """Answers chat completions by the first word that it knows."""

    n_asked = 0

    def do_POST(self) -> None:
        Model.n_asked += 1
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][-1]["content"]
        text = next((answer for word, answer in ANSWERS.items() if word in prompt), "I do not know.")
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        sent = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *values: object) -> None:
        """Nothing: the program prints what matters."""


@contextmanager
def local_model() -> Iterator[str]:
    """The address of the model, while it runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def main() -> None:
    with local_model() as address, SemanticCache(threshold=0.6) as cache:
        client = CachedOpenAI(openai.OpenAI(base_url=address, api_key="none"), cache)
        for prompt in (
            "What is the capital of France?",
            "What is the capital of France?",
            "what's the capital of France",
            "How long do I boil 2 eggs?",
            "How long do I boil 3 eggs?",
        ):
            n_before = Model.n_asked
            reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])
            source = "model" if Model.n_asked > n_before else "cache"
            print(f"{source}: {prompt} -> {reply.choices[0].message.content}")
        told = cache.counters
        print(f"{Model.n_asked} of {told.hits + told.misses} questions reached the model")


if __name__ == "__main__":
    main()
