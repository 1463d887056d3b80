-- The schema of the SQLite store. Ids are BLOBs of 16 bytes (UUIDv7), times are INTEGERs: microseconds since the
-- epoch. States, reasons and outcomes are the numbers of `signalpost_core::delivery`. No foreign keys: deletes run in
-- bounded chunks, and what refers to what is gone is handled where it is read.

CREATE TABLE tenants (
    id              BLOB NOT NULL PRIMARY KEY,
    slug            TEXT NOT NULL UNIQUE,
    name            TEXT NOT NULL,
    -- Counts the changes of its destinations.
    routing_version INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO tenants (id, slug, name, created_at)
VALUES (x'00000000000070008000000000000001', 'default', 'Default', CAST(unixepoch('subsec') * 1000000 AS INTEGER));

CREATE TABLE destinations (
    id              BLOB NOT NULL PRIMARY KEY,
    tenant_id       BLOB NOT NULL,
    uid             TEXT,
    spec            TEXT NOT NULL,
    secret          TEXT NOT NULL,
    state           TEXT NOT NULL,
    disabled_reason TEXT,
    version         INTEGER NOT NULL,
    -- What one take of the feed yields at most: two seconds of its rate. NULL: no limit.
    feed_limit      INTEGER,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX destinations_uid ON destinations (tenant_id, uid) WHERE uid IS NOT NULL AND state <> 'deleted';
CREATE INDEX destinations_tenant ON destinations (tenant_id, id);
CREATE INDEX destinations_updated ON destinations (updated_at);
CREATE INDEX destinations_deleted ON destinations (id) WHERE state = 'deleted';

CREATE TABLE events (
    id        BLOB NOT NULL PRIMARY KEY,
    tenant_id BLOB NOT NULL,
    type      TEXT NOT NULL,
    uid       TEXT,
    source    TEXT,
    meta      TEXT NOT NULL,
    -- Last, so that a reader of the other columns never touches its overflow pages.
    data      BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX events_tenant ON events (tenant_id, id);
CREATE INDEX events_uid ON events (tenant_id, uid, id) WHERE uid IS NOT NULL;

-- The id of a delivery carries the millisecond of its event: an event's deliveries are a range of the key.
-- No index holds a column that an outcome changes.
CREATE TABLE deliveries (
    id             BLOB NOT NULL PRIMARY KEY,
    tenant_id      BLOB NOT NULL,
    event_id       BLOB NOT NULL,
    destination_id BLOB NOT NULL,
    state          INTEGER NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0,
    -- Why it is dead.
    reason         INTEGER,
    replay_of      BLOB,
    replayed_by    BLOB,
    ended_at       INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_destination ON deliveries (destination_id, id);

CREATE TABLE attempts (
    delivery_id      BLOB NOT NULL,
    number           INTEGER NOT NULL,
    tenant_id        BLOB NOT NULL,
    destination_id   BLOB NOT NULL,
    event_id         BLOB NOT NULL,
    started_at       INTEGER NOT NULL,
    duration_us      INTEGER NOT NULL,
    outcome          INTEGER NOT NULL,
    status_code      INTEGER,
    error            TEXT,
    response_excerpt BLOB NOT NULL,
    PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;

-- The anchors of all deliveries in state `Waiting`.
CREATE TABLE waiting (
    delivery_id    BLOB NOT NULL PRIMARY KEY,
    tenant_id      BLOB NOT NULL,
    destination_id BLOB NOT NULL,
    event_id       BLOB NOT NULL,
    due_at         INTEGER NOT NULL,
    reason         INTEGER NOT NULL,
    -- 1: fed to the bus, and due_at is the end (and mark) of that lease.
    leased         INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX waiting_due ON waiting (destination_id, due_at);

-- One row per destination with waiting deliveries, kept in the transaction that changes `waiting`.
CREATE TABLE queues (
    destination_id BLOB NOT NULL PRIMARY KEY,
    tenant_id      BLOB NOT NULL,
    -- Its rows in `waiting`.
    depth          INTEGER NOT NULL,
    -- When the feed shall look at it: never later than it can be fed, never earlier than hold_until.
    next_due       INTEGER NOT NULL,
    hold_until     INTEGER NOT NULL DEFAULT 0,
    -- 1: the destination is not active.
    blocked        INTEGER NOT NULL,
    -- 1: new deliveries go straight to `waiting`.
    spilled        INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX queues_due ON queues (next_due) WHERE blocked = 0;

-- One row per ingest group whose deliveries the bus has not acknowledged.
CREATE TABLE outbox (
    id           BLOB NOT NULL PRIMARY KEY,
    created_at   INTEGER NOT NULL,
    -- Their ids, 16 bytes each.
    delivery_ids BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Large fan-outs that are still to be expanded.
CREATE TABLE fan_outs (
    event_id        BLOB NOT NULL PRIMARY KEY,
    tenant_id       BLOB NOT NULL,
    -- How many of them are done.
    position        INTEGER NOT NULL DEFAULT 0,
    -- Their ids, 16 bytes each.
    destination_ids BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Idempotency keys, and the uids of events (scope `uid:<source>`).
CREATE TABLE idempotency (
    tenant_id   BLOB NOT NULL,
    scope       TEXT NOT NULL,
    key         TEXT NOT NULL,
    body_hash   BLOB NOT NULL,
    -- 0: under way, until lease_until; 1: answered.
    state       INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    lease_until INTEGER,
    status      INTEGER,
    answer      BLOB,
    PRIMARY KEY (tenant_id, scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expires ON idempotency (expires_at);

CREATE TABLE dead_letters (
    delivery_id    BLOB NOT NULL PRIMARY KEY,
    tenant_id      BLOB NOT NULL,
    destination_id BLOB NOT NULL,
    event_id       BLOB NOT NULL,
    reason         INTEGER NOT NULL,
    dead_at        INTEGER NOT NULL,
    attempts       INTEGER NOT NULL,
    -- The copy of its event.
    event_type     TEXT NOT NULL,
    event_uid      TEXT,
    event_source   TEXT,
    event_meta     TEXT NOT NULL,
    event_data     BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_letters_tenant ON dead_letters (tenant_id, delivery_id);
CREATE INDEX dead_letters_dead ON dead_letters (dead_at);

CREATE TABLE replays (
    id              BLOB NOT NULL PRIMARY KEY,
    tenant_id       BLOB NOT NULL,
    selection       TEXT NOT NULL,
    rate_per_second REAL,
    state           TEXT NOT NULL,
    matched         INTEGER,
    replayed        INTEGER NOT NULL DEFAULT 0,
    -- How far it has come: the phase (one byte) and the last key that was looked at. NULL: not begun.
    cursor          BLOB,
    created_at      INTEGER NOT NULL,
    finished_at     INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX replays_tenant ON replays (tenant_id, id);

-- How far background jobs have come: the id below which there is nothing to do.
CREATE TABLE marks (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO marks (name, value)
VALUES ('requeue', x'00000000000000000000000000000000'), ('retain', x'00000000000000000000000000000000');
