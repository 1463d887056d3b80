-- no-transaction
--
-- When a circuit was told: how dispatchers hear of what others saw. Only adds; can be run again from any point.

BEGIN;
SET LOCAL lock_timeout = '10s';

ALTER TABLE destinations ADD COLUMN IF NOT EXISTS circuit_at timestamptz;
CREATE INDEX IF NOT EXISTS destinations_circuit ON destinations (circuit_at) WHERE circuit_at IS NOT NULL;

COMMIT;
