-- Tenants with keys, the audit log, encrypted secrets.

CREATE TABLE api_keys (
    id           BLOB NOT NULL PRIMARY KEY,
    tenant_id    BLOB NOT NULL,
    -- SHA-256 of its text.
    hash         BLOB NOT NULL UNIQUE,
    hint         TEXT NOT NULL,
    name         TEXT NOT NULL,
    -- The bits of `signalpost_core::Scopes`.
    scopes       INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX api_keys_tenant ON api_keys (tenant_id, id);

-- The id holds the time. An entry without a status is under way, or its process died.
CREATE TABLE audit_log (
    id         BLOB NOT NULL PRIMARY KEY,
    tenant_id  BLOB NOT NULL,
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    target     TEXT NOT NULL,
    address    TEXT,
    request_id TEXT NOT NULL,
    before     TEXT,
    after      TEXT,
    status     INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_log_tenant ON audit_log (tenant_id, id);

-- `signalpost_core::TenantSpec`; null: the name alone.
ALTER TABLE tenants ADD COLUMN spec TEXT;
ALTER TABLE tenants ADD COLUMN ingest_sealed BLOB;
-- The id of the key that it is sealed with.
ALTER TABLE tenants ADD COLUMN ingest_sealed_by TEXT;
ALTER TABLE tenants ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE tenants ADD COLUMN updated_at INTEGER;
ALTER TABLE tenants ADD COLUMN deleting_at INTEGER;
ALTER TABLE tenants ADD COLUMN deleted_rows INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tenants_deleting ON tenants (deleting_at) WHERE deleting_at IS NOT NULL;

-- `signalpost_core::DestinationSecrets`, encrypted. Null: they are in `secret` and in the `headers` of `spec`; else
-- `secret` is empty.
ALTER TABLE destinations ADD COLUMN sealed BLOB;
ALTER TABLE destinations ADD COLUMN sealed_by TEXT;
