"""Routes of API keys: an admin key makes, lists, rotates and revokes those of its own tenant."""

from __future__ import annotations

import time

from faissbase.errors import AccessError
from faissbase.server.keys import SCOPES, Key
from faissbase.server.operations import Call, Operation
from faissbase.wire import CreateKey, KeyList, KeyOut, RotateKey


def out(key: Key, now_s: float, text: str | None = None) -> KeyOut:
    """A key as it is shown; ``text`` only when it is made."""
    return KeyOut(
        id=key.id,
        tenant_id=key.tenant,
        name=key.name,
        scopes=sorted(key.scopes, key=SCOPES.index),
        state=key.state_at(now_s),
        created_s=key.created_s,
        indexes=None if key.indexes is None else sorted(key.indexes),
        expires_s=key.expires_s,
        key=text,
    )


def _check_whole(call: Call) -> None:
    """A key for some indexes only could make itself one for all."""
    if call.key.indexes is not None:
        raise AccessError("a key that is limited to some indexes may not manage keys")


def create(call: Call) -> KeyOut:
    _check_whole(call)
    body: CreateKey = call.body
    made = call.keys.create(
        call.key.tenant, body.scopes, name=body.name, indexes=body.indexes, expires_in_s=body.expires_in_s
    )
    return out(made[0], time.time(), made[1])


def list_all(call: Call) -> KeyList:
    _check_whole(call)
    return KeyList([out(key, time.time()) for key in call.keys.all(call.key.tenant)])


def revoke(call: Call) -> KeyOut:
    _check_whole(call)
    return out(call.keys.revoke(call.path["key"], call.key.tenant), time.time())


def rotate(call: Call) -> KeyOut:
    _check_whole(call)
    body: RotateKey = call.body
    made = call.keys.rotate(call.path["key"], grace_s=body.grace_s, tenant=call.key.tenant)
    return out(made[0], time.time(), made[1])


OPERATIONS = (
    Operation(
        ("POST",), "/keys", "admin", "Make a key; it is shown this once", create, KeyOut, CreateKey, 201
    ),
    Operation(
        ("GET",), "/keys", "admin", "The keys of this tenant, without their secrets", list_all, KeyList
    ),
    Operation(("DELETE",), "/keys/{key}", "admin", "Revoke a key, at once", revoke, KeyOut),
    Operation(
        ("POST",), "/keys/{key}/rotate", "admin", "A new key for an old one", rotate, KeyOut, RotateKey, 201
    ),
)
