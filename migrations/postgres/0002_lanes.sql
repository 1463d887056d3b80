-- no-transaction
--
-- Lanes, claims, births, holds with trials, circuits, failing destinations, living dispatchers.
--
-- Only adds: the version before goes on working on this schema. Columns may be null, so nothing is rewritten, and
-- partitions get them from their parent. The one index on a table that may be large, on `waiting`, holds rows of lanes only, of
-- which there are none yet: making it reads the table once (about 0.2 s per million rows), so it is not made concurrently;
-- several processes that migrate at once would wait for each other for ever.
--
-- Each table is changed in a transaction of its own, so that no other waits for two of them at once; whoever waits for
-- one waits behind us, so rather fail than wait for long. It can be run again from any point.

BEGIN;

-- Places in lanes. Drawn under the lock of the lane's row, so that they grow in the order of commits within each; for
-- the same reason no session keeps a stock of them.
CREATE SEQUENCE IF NOT EXISTS lane_seq CACHE 1;

-- One row per lane with members that have not ended, or that is blocked.
CREATE TABLE IF NOT EXISTS lanes (
    destination_id uuid NOT NULL,
    lane uuid NOT NULL,
    -- Members that have not ended: its rows in waiting.
    depth bigint NOT NULL,
    -- The dead letter that nobody may overtake until it is replayed or discarded.
    blocked_by uuid,
    PRIMARY KEY (destination_id, lane)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
CREATE INDEX IF NOT EXISTS lanes_blocked ON lanes (destination_id, blocked_by) WHERE blocked_by IS NOT NULL;

-- Destinations to which nothing has arrived since their first failure.
CREATE TABLE IF NOT EXISTS failing (
    destination_id uuid PRIMARY KEY,
    since timestamptz NOT NULL,
    attempts bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);

-- Heartbeats.
CREATE TABLE IF NOT EXISTS dispatchers (
    id bigint PRIMARY KEY,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200);

COMMIT;
BEGIN;
SET LOCAL lock_timeout = '10s';

ALTER TABLE deliveries
    -- Must not overtake others of the same destination and lane: the first 16 bytes of the SHA-256 of its key.
    ADD COLUMN IF NOT EXISTS lane uuid,
    -- Its place in the lane.
    ADD COLUMN IF NOT EXISTS lane_seq bigint,
    -- Null: at least once.
    ADD COLUMN IF NOT EXISTS guarantee smallint,
    -- Of a replay. Null: the time in its id.
    ADD COLUMN IF NOT EXISTS born_at timestamptz;

COMMIT;
BEGIN;
SET LOCAL lock_timeout = '10s';

-- Infinite `due_at`: it waits for those of its lane before it.
ALTER TABLE waiting
    ADD COLUMN IF NOT EXISTS lane uuid,
    ADD COLUMN IF NOT EXISTS lane_seq bigint,
    -- At most once: the one request that may be made of it. Once set, never another.
    ADD COLUMN IF NOT EXISTS claim bigint;
CREATE INDEX IF NOT EXISTS waiting_lane ON waiting (destination_id, lane, lane_seq) WHERE lane IS NOT NULL;

COMMIT;
BEGIN;
SET LOCAL lock_timeout = '10s';

-- After the hold, the feed takes no more than so many at once, once a second. Null: as usual.
ALTER TABLE queues
    ADD COLUMN IF NOT EXISTS trial integer,
    -- The feed has just taken from it as much as its pace allows.
    ADD COLUMN IF NOT EXISTS paced_until timestamptz;

COMMIT;
BEGIN;
SET LOCAL lock_timeout = '10s';

-- What its circuit did last, for people.
ALTER TABLE destinations ADD COLUMN IF NOT EXISTS circuit jsonb;

COMMIT;
BEGIN;
SET LOCAL lock_timeout = '10s';

-- As its delivery, which may be gone before it.
ALTER TABLE dead_letters
    ADD COLUMN IF NOT EXISTS lane uuid,
    ADD COLUMN IF NOT EXISTS lane_seq bigint,
    ADD COLUMN IF NOT EXISTS guarantee smallint;

COMMIT;
