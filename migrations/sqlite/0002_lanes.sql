-- Order, guarantees and circuits. A lane is one destination and one ordering key: 16 bytes, the hash of the key.

ALTER TABLE destinations ADD COLUMN circuit TEXT;

-- The lane and the place in it are fixed at birth; NULL: not ordered.
ALTER TABLE deliveries ADD COLUMN lane BLOB;
ALTER TABLE deliveries ADD COLUMN lane_seq INTEGER;
-- The number of `signalpost_core::Guarantee`.
ALTER TABLE deliveries ADD COLUMN guarantee INTEGER NOT NULL DEFAULT 0;
-- Of a replay: when it was made. NULL: with its event.
ALTER TABLE deliveries ADD COLUMN born_at INTEGER;
-- What a replay job must not cut apart.
CREATE INDEX deliveries_lane ON deliveries (id) WHERE lane IS NOT NULL;

-- A dead letter may outlive its delivery, and be sent again then.
ALTER TABLE dead_letters ADD COLUMN lane BLOB;
ALTER TABLE dead_letters ADD COLUMN lane_seq INTEGER;
ALTER TABLE dead_letters ADD COLUMN guarantee INTEGER NOT NULL DEFAULT 0;

-- Every open delivery of a lane waits; those behind its first one have no due time (the largest number there is).
ALTER TABLE waiting ADD COLUMN lane BLOB;
ALTER TABLE waiting ADD COLUMN lane_seq INTEGER;
-- The one request that an at-most-once delivery gets.
ALTER TABLE waiting ADD COLUMN claim INTEGER;
CREATE INDEX waiting_lane ON waiting (destination_id, lane, lane_seq) WHERE lane IS NOT NULL;

CREATE TABLE lanes (
    destination_id BLOB NOT NULL,
    lane           BLOB NOT NULL,
    -- Its rows in `waiting`.
    depth          INTEGER NOT NULL,
    -- The dead letter that it waits for.
    blocked_by     BLOB,
    PRIMARY KEY (destination_id, lane)
) STRICT, WITHOUT ROWID;
CREATE INDEX lanes_blocked ON lanes (destination_id) WHERE blocked_by IS NOT NULL;

-- After its hold a queue yields so many at a time. NULL: as usual.
ALTER TABLE queues ADD COLUMN trial INTEGER;
-- The feed was there a moment ago, and leaves it alone until then.
ALTER TABLE queues ADD COLUMN paced_until INTEGER NOT NULL DEFAULT 0;

-- Destinations at which nothing arrives.
CREATE TABLE failing (
    destination_id BLOB NOT NULL PRIMARY KEY,
    -- The first failure after the last arrival.
    since          INTEGER NOT NULL,
    attempts       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The place in its lane that was given last, 8 bytes.
INSERT INTO marks (name, value) VALUES ('lane_seq', x'0000000000000000');
