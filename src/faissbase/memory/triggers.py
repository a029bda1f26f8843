"""What is made with the tables: triggers that number every change of a memory, and the database's own id.

The triggers see bulk statements and other programs too.

The conversation's row is raised first and stays locked until the commit: so numbers become visible in their
order, and who has seen number n has seen all before it.
"""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import event, insert, select

from faissbase.memory.models import Conversation, Fact, Memory, Removed

FORMAT = "1"

_MEMORIES, _CONVERSATIONS, _REMOVED = (each.__tablename__ for each in (Memory, Conversation, Removed))
_WATCHED = (
    "conversation_id, kind, text, importance, speaker, occurred_at, active, valid_from, valid_to, embedding, "
    "embedder, user_id, agent_id, session_id"
)
_STAMP_MAX = 1 << 40  # the sum over millions of them still fits 64 bits

_SQLITE_RAISE = (
    f"INSERT INTO {_CONVERSATIONS} (id, seq, n_messages) VALUES ({{row}}.conversation_id, 1, 0) "
    "ON CONFLICT (id) DO UPDATE SET seq = seq + 1;"
)
_SQLITE_NUMBER = (
    f"UPDATE {_MEMORIES} SET stamp = abs(random() % {_STAMP_MAX}), "
    f"seq = (SELECT seq FROM {_CONVERSATIONS} WHERE id = NEW.conversation_id) WHERE id = NEW.id;"
)
_SQLITE_BURY = (
    f"INSERT INTO {_REMOVED} (conversation_id, seq, memory_id) SELECT OLD.conversation_id, seq, OLD.id "
    f"FROM {_CONVERSATIONS} WHERE id = OLD.conversation_id;"
)
# A conversation that is being deleted takes its memories along, and must not come back through them.
_SQLITE_LOWER = f"UPDATE {_CONVERSATIONS} SET seq = seq + 1 WHERE id = OLD.conversation_id;"


def _sqlite() -> list[str]:
    raise_new = _SQLITE_RAISE.format(row="NEW")
    moved = "WHEN OLD.conversation_id <> NEW.conversation_id"
    bodies = {
        "insert_first": f"BEFORE INSERT ON {_MEMORIES} BEGIN {raise_new} END",
        "insert": f"AFTER INSERT ON {_MEMORIES} BEGIN {_SQLITE_NUMBER} END",
        "update_first": f"BEFORE UPDATE OF {_WATCHED} ON {_MEMORIES} BEGIN {raise_new} END",
        "update": f"AFTER UPDATE OF {_WATCHED} ON {_MEMORIES} BEGIN {_SQLITE_NUMBER} END",
        "move": f"AFTER UPDATE OF conversation_id ON {_MEMORIES} {moved} "
        f"BEGIN {_SQLITE_LOWER} {_SQLITE_BURY} END",
        "delete": f"AFTER DELETE ON {_MEMORIES} BEGIN {_SQLITE_LOWER} {_SQLITE_BURY} END",
    }
    return [f"CREATE TRIGGER IF NOT EXISTS {_MEMORIES}_{name} {body}" for name, body in bodies.items()]


_POSTGRES_FUNCTION = f"""
CREATE OR REPLACE FUNCTION {_MEMORIES}_numbered() RETURNS trigger AS $$
DECLARE
    raised bigint;
BEGIN
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.conversation_id <> NEW.conversation_id) THEN
        UPDATE {_CONVERSATIONS} SET seq = seq + 1 WHERE id = OLD.conversation_id RETURNING seq INTO raised;
        IF raised IS NOT NULL THEN
            INSERT INTO {_REMOVED} (conversation_id, seq, memory_id)
                VALUES (OLD.conversation_id, raised, OLD.id);
        END IF;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    INSERT INTO {_CONVERSATIONS} AS c (id, seq, n_messages) VALUES (NEW.conversation_id, 1, 0)
        ON CONFLICT (id) DO UPDATE SET seq = c.seq + 1 RETURNING seq INTO raised;
    NEW.seq := raised;
    NEW.stamp := floor(random() * {_STAMP_MAX});
    RETURN NEW;
END
$$ LANGUAGE plpgsql
"""


def _postgresql() -> list[str]:
    statements = [_POSTGRES_FUNCTION]
    for name, when in {"insert": "INSERT", "update": f"UPDATE OF {_WATCHED}", "delete": "DELETE"}.items():
        statements.append(
            f"CREATE OR REPLACE TRIGGER {_MEMORIES}_{name} BEFORE {when} ON {_MEMORIES} "
            f"FOR EACH ROW EXECUTE FUNCTION {_MEMORIES}_numbered()"
        )
    return statements


def _create(_: Any, connection: Any, **__: Any) -> None:
    is_postgres = connection.dialect.name == "postgresql"
    statements = _postgresql() if is_postgres else _sqlite()
    for statement in statements:
        connection.exec_driver_sql(statement.replace("%", "%%") if is_postgres else statement)
    known = set(connection.scalars(select(Fact.name)))
    for name, value in {"id": uuid.uuid4().hex, "format": FORMAT}.items():
        if name not in known:
            connection.execute(insert(Fact).values(name=name, value=value))


event.listen(Memory.metadata, "after_create", _create)
