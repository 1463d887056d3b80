-- no-transaction
--
-- Tenants with keys, the audit log, encrypted secrets.
--
-- Only adds; can be run again from any point. What is written stays readable to the version before until secrets are
-- encrypted: on a database that has destinations by then, from `signalpost rotate-keys` on.

BEGIN;

CREATE TABLE IF NOT EXISTS api_keys (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    -- SHA-256 of its text.
    hash bytea NOT NULL UNIQUE,
    hint text NOT NULL,
    name text NOT NULL,
    -- The bits of `signalpost_core::Scopes`.
    scopes integer NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS api_keys_tenant ON api_keys (tenant_id, id);

-- The id holds the time. An entry without a status is under way, or its process died.
CREATE TABLE IF NOT EXISTS audit_log (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    address text,
    request_id text NOT NULL,
    before jsonb,
    after jsonb,
    status integer
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS audit_log_tenant ON audit_log (tenant_id, id);

COMMIT;
BEGIN;
SET LOCAL lock_timeout = '10s';

ALTER TABLE tenants
    -- `signalpost_core::TenantSpec`; null: the name alone.
    ADD COLUMN IF NOT EXISTS spec jsonb,
    ADD COLUMN IF NOT EXISTS ingest_sealed bytea,
    -- The id of the key that it is sealed with.
    ADD COLUMN IF NOT EXISTS ingest_sealed_by text,
    ADD COLUMN IF NOT EXISTS version integer NOT NULL DEFAULT 1,
    ADD COLUMN IF NOT EXISTS updated_at timestamptz,
    ADD COLUMN IF NOT EXISTS deleting_at timestamptz,
    ADD COLUMN IF NOT EXISTS deleted_rows bigint NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS tenants_deleting ON tenants (deleting_at) WHERE deleting_at IS NOT NULL;

COMMIT;
BEGIN;
SET LOCAL lock_timeout = '10s';

-- `signalpost_core::DestinationSecrets`, encrypted. Null: they are in `secret` and in the `headers` of `spec`; else
-- `secret` is empty.
ALTER TABLE destinations
    ADD COLUMN IF NOT EXISTS sealed bytea,
    ADD COLUMN IF NOT EXISTS sealed_by text;

INSERT INTO marks (name, value)
SELECT 'secrets_sealed', '1' WHERE NOT EXISTS (SELECT FROM destinations)
ON CONFLICT DO NOTHING;

COMMIT;
