//! The statements of the feed, apart, so that a test can show how they are carried out.

/// When the next queue is due: whether there is anything to do.
pub const NEXT_DUE: &str = "SELECT clock_timestamp() AS now,
            (SELECT next_due FROM queues WHERE NOT blocked ORDER BY next_due LIMIT 1) AS next";

/// The due queues: of every tenant its longest due first, then of every tenant its second, and so on.
pub const DUE_QUEUES: &str =
    "SELECT statement_timestamp() AS now, q.destination_id, q.tenant_id, q.depth, q.trial, d.version, d.feed_limit
     FROM (SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY next_due, destination_id) AS turn
           FROM queues WHERE NOT blocked AND next_due <= statement_timestamp()) q
     JOIN destinations d ON d.id = q.destination_id AND d.state = 'active'
     ORDER BY q.turn, q.next_due, q.destination_id LIMIT $1";

/// Takes so many due rows of each of these queues, and gives them in the order in which they were due.
pub const LEASE: &str = "WITH picked AS MATERIALIZED (
         SELECT w.delivery_id, w.due_at, q.place
         FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS q(destination_id, share, place)
         CROSS JOIN LATERAL (
             SELECT delivery_id, due_at FROM waiting
             WHERE destination_id = q.destination_id AND due_at <= $3
             ORDER BY due_at, delivery_id LIMIT q.share FOR UPDATE SKIP LOCKED
         ) w
     ), taken AS (
         UPDATE waiting SET due_at = $4, leased = true WHERE delivery_id = ANY(ARRAY(SELECT delivery_id FROM picked))
         RETURNING delivery_id, tenant_id, destination_id, event_id, reason
     )
     SELECT t.delivery_id, t.tenant_id, t.destination_id, t.event_id, t.reason
     FROM taken t JOIN picked p ON p.delivery_id = t.delivery_id ORDER BY p.place, p.due_at, p.delivery_id";

/// Tells the queues, which are locked, when they are due next.
pub const ADVANCE: &str = "UPDATE queues q SET
         next_due = GREATEST(COALESCE(i.first_due, 'infinity'), $3, $3 + i.pace_us * interval '1 microsecond', q.hold_until,
                             q.paced_until),
         paced_until = CASE WHEN i.pace_us > 0
             THEN GREATEST(q.paced_until, $3 + i.pace_us * interval '1 microsecond') ELSE q.paced_until END,
         trial = CASE WHEN q.hold_until > $3 - $4 * interval '1 microsecond' THEN q.trial END,
         spilled = q.spilled AND (COALESCE(i.first_due, 'infinity') <= $3 OR COALESCE(q.hold_until > $3, false)
             OR COALESCE(q.trial IS NOT NULL AND q.hold_until > $3 - $4 * interval '1 microsecond', false))
     FROM (SELECT u.destination_id, u.pace_us,
                  (SELECT w.due_at FROM waiting w WHERE w.destination_id = u.destination_id
                   ORDER BY w.due_at LIMIT 1) AS first_due
           FROM unnest($1::uuid[], $2::bigint[]) AS u(destination_id, pace_us)) i
     WHERE q.destination_id = i.destination_id AND q.destination_id = ANY($1)
     RETURNING q.next_due";
