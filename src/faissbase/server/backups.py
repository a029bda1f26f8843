"""The route of backups: a tenant's collections as one file, sent as fast as it is taken."""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

from faissbase.errors import AccessError, ConflictError
from faissbase.server.downloads import Download
from faissbase.server.operations import Call, Operation
from faissbase.wire import Empty

# Those that are being made or sent: one for each tenant, for each takes room on the disk.
_lock = threading.Lock()
_running: WeakValueDictionary[tuple[int, str], Download] = WeakValueDictionary()


def backup(call: Call) -> Download:
    if call.key.indexes is not None:
        raise AccessError("a key that is limited to some indexes may not make backups")
    tenant = call.key.tenant
    download = Download(f"{tenant}.faissbase", call.settings.body_timeout_s)
    with _lock:
        other = _running.get((id(call.tenants), tenant))
        if other is not None and (other.file is None or not other.file.closed):
            raise ConflictError("a backup of this tenant is being made or sent: wait for its end")
        _running[id(call.tenants), tenant] = download
    download.fill(call.tenants.database(tenant).open_backup())
    return download


OPERATIONS = (
    Operation(
        ("POST",),
        "/backup",
        "admin",
        "All of this tenant's indexes as one file",
        backup,
        Download,
        Empty,
        is_long=True,
    ),
)
