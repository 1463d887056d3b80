-- no-transaction
--
-- A row of the outbox lies in its page, as it is. Ids do not compress, and a row that is kept elsewhere is several, with an index of
-- their own; each is deleted within seconds. Changes no row; can be run again from any point.

BEGIN;
SET LOCAL lock_timeout = '10s';

ALTER TABLE outbox SET (toast_tuple_target = 8160);
ALTER TABLE outbox ALTER COLUMN delivery_ids SET STORAGE EXTERNAL;

COMMIT;
