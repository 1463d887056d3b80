-- From when a replay job with a rate may create its next delivery. NULL: it has created none.
ALTER TABLE replays ADD COLUMN paced_until INTEGER;
