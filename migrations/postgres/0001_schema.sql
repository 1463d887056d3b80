-- The first schema. Times are the database's own; ids are UUIDv7, made by Signalpost.
--
-- events, deliveries and attempts are partitioned by range of id, one partition per day of acceptance (a delivery's id
-- carries its event's millisecond). There is no default partition and no foreign key between the three: partitions
-- are made ahead by CREATE and ATTACH, and dropped whole.
--
-- Numbers in `state`, `reason` and `outcome` are those of the enums in signalpost-core.

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    -- Grows with each change of one of its destinations; read by every ingest group.
    routing_version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO tenants (id, slug, name) VALUES ('00000000-0000-7000-8000-000000000001', 'default', 'Default');

CREATE TABLE destinations (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    uid text,
    spec jsonb NOT NULL,
    secret text NOT NULL,
    -- active, paused, disabled, deleted
    state text NOT NULL,
    disabled_reason text,
    version bigint NOT NULL,
    -- Two seconds of its rate limit; null: no limit.
    feed_limit bigint,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX destinations_uid ON destinations (tenant_id, uid) WHERE uid IS NOT NULL AND state <> 'deleted';
CREATE INDEX destinations_tenant ON destinations (tenant_id, id);
CREATE INDEX destinations_updated ON destinations (updated_at);
CREATE INDEX destinations_deleted ON destinations (id) WHERE state = 'deleted';

CREATE TABLE events (
    id uuid NOT NULL PRIMARY KEY,
    tenant_id uuid NOT NULL,
    type text NOT NULL,
    uid text,
    source text,
    meta jsonb NOT NULL,
    data bytea NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX events_tenant ON events (tenant_id, id);
CREATE INDEX events_uid ON events (tenant_id, uid, id) WHERE uid IS NOT NULL;

-- No index on a column that an outcome changes, and room in each page: an outcome is a HOT update.
CREATE TABLE deliveries (
    id uuid NOT NULL PRIMARY KEY,
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    destination_id uuid NOT NULL,
    replay_of uuid,
    replayed_by uuid,
    ended_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    state smallint NOT NULL,
    -- Why it is dead.
    reason smallint,
    event_type text NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX deliveries_destination ON deliveries (destination_id, id);
CREATE INDEX deliveries_tenant ON deliveries (tenant_id, id);

CREATE TABLE attempts (
    delivery_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    destination_id uuid NOT NULL,
    event_id uuid NOT NULL,
    started_at timestamptz NOT NULL,
    duration_us bigint NOT NULL,
    number integer NOT NULL,
    status_code integer,
    outcome smallint NOT NULL,
    response_excerpt bytea NOT NULL,
    error text,
    PRIMARY KEY (delivery_id, number)
) PARTITION BY RANGE (delivery_id);

-- One row per delivery in state waiting.
CREATE TABLE waiting (
    delivery_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    destination_id uuid NOT NULL,
    event_id uuid NOT NULL,
    due_at timestamptz NOT NULL,
    reason smallint NOT NULL,
    -- It was fed to the bus, and due_at is the end of that lease.
    leased boolean NOT NULL DEFAULT false
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX waiting_due ON waiting (destination_id, due_at, delivery_id);

-- One row per destination, born and removed with it; depth counts its rows in waiting and is changed with them.
CREATE TABLE queues (
    destination_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    depth bigint NOT NULL,
    -- Not later than the first due row, not earlier than hold_until; infinity where nothing waits.
    next_due timestamptz NOT NULL,
    hold_until timestamptz,
    -- The destination is not active.
    blocked boolean NOT NULL,
    -- New deliveries go straight to waiting until nothing of it is due any more.
    spilled boolean NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
CREATE INDEX queues_due ON queues (next_due) WHERE NOT blocked;
CREATE INDEX queues_blocked ON queues (destination_id) WHERE blocked;
CREATE INDEX queues_spilled ON queues (destination_id) WHERE spilled;

-- One row per ingest group, until the bus has acknowledged it.
CREATE TABLE outbox (
    id uuid PRIMARY KEY,
    created_at timestamptz NOT NULL,
    -- 16 bytes each.
    delivery_ids bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
CREATE INDEX outbox_created ON outbox (created_at);

-- Large fan-outs that are not wholly expanded.
CREATE TABLE fan_outs (
    event_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    -- 16 bytes each.
    destination_ids bytea NOT NULL,
    -- How many of them have their delivery.
    position integer NOT NULL DEFAULT 0
);

-- Idempotency keys of requests, and the uids of events (scope `uid:<source>`).
CREATE TABLE idempotency (
    tenant_id uuid NOT NULL,
    scope text NOT NULL,
    key text NOT NULL,
    body_hash bytea NOT NULL,
    status integer NOT NULL,
    answer bytea NOT NULL,
    -- 0: under way until lease_until, 1: answered.
    state smallint NOT NULL,
    expires_at timestamptz NOT NULL,
    lease_until timestamptz,
    PRIMARY KEY (tenant_id, scope, key)
);
CREATE INDEX idempotency_expires ON idempotency (expires_at);

-- Dead deliveries neither replayed nor discarded, each with its own copy of its event.
CREATE TABLE dead_letters (
    delivery_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    destination_id uuid NOT NULL,
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    reason smallint NOT NULL,
    dead_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    uid text,
    source text,
    meta jsonb NOT NULL,
    data bytea NOT NULL
);
CREATE INDEX dead_letters_tenant ON dead_letters (tenant_id, delivery_id);
CREATE INDEX dead_letters_destination ON dead_letters (destination_id, delivery_id);
CREATE INDEX dead_letters_dead_at ON dead_letters (dead_at);

CREATE TABLE replays (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    selection jsonb NOT NULL,
    rate_per_second double precision,
    -- running, completed, cancelled
    state text NOT NULL,
    matched bigint,
    replayed bigint NOT NULL DEFAULT 0,
    -- The last delivery looked at; then, for `missing`, the last event.
    delivery_cursor uuid,
    event_cursor uuid,
    created_at timestamptz NOT NULL,
    -- By the store's clock: what ended later is not part of the job.
    asked_at timestamptz NOT NULL,
    finished_at timestamptz
);
CREATE INDEX replays_tenant ON replays (tenant_id, id);
CREATE INDEX replays_running ON replays (id) WHERE state = 'running';

-- How far background work has come.
CREATE TABLE marks (
    name text PRIMARY KEY,
    value text NOT NULL
);
INSERT INTO marks (name, value) VALUES ('requeue_lost', '00000000-0000-0000-0000-000000000000');
