-- no-transaction
--
-- Replay jobs: a pace that all processes share, and counting in pieces. Only adds; can be run again from any point.

BEGIN;
SET LOCAL lock_timeout = '10s';

ALTER TABLE replays
    -- With a rate: from when the next delivery may be created.
    ADD COLUMN IF NOT EXISTS paced_until timestamptz,
    -- While it is counted: how many were found, and the last delivery and event looked at.
    ADD COLUMN IF NOT EXISTS counted bigint,
    ADD COLUMN IF NOT EXISTS counted_delivery uuid,
    ADD COLUMN IF NOT EXISTS counted_event uuid;

COMMIT;
