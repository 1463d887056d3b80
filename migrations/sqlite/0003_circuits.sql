-- When a circuit was told: how dispatchers hear of what others saw.
ALTER TABLE destinations ADD COLUMN circuit_at INTEGER;
CREATE INDEX destinations_circuit ON destinations (circuit_at) WHERE circuit_at IS NOT NULL;
