-- What collection needs to survive its vendor: one rate limit with priorities and pauses, one shared session
-- with the vendor, bars that people release from quarantine, and splits with what they changed.

-- not_before: nobody sends before it, since the vendor has answered 429. refusals: pauses in a row.
ALTER TABLE request_clock
    ADD COLUMN not_before timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN refusals   integer     NOT NULL DEFAULT 0;

-- Who waits for the next slot; a process that dies is forgotten when alive_until has passed.
CREATE TABLE request_queue (
    waiter       uuid         PRIMARY KEY,
    vendor       text         NOT NULL,
    priority     integer      NOT NULL,
    since        timestamptz  NOT NULL DEFAULT clock_timestamp(),
    alive_until  timestamptz  NOT NULL
);
COMMENT ON COLUMN request_queue.priority IS 'lower goes first';

-- The anonymous session with the vendor's server: cookies and crumb, obtained once for all processes.
CREATE TABLE vendor_session (
    server          text         PRIMARY KEY,
    cookies         jsonb,
    crumb           text,
    obtained_at     timestamptz,
    renewing_until  timestamptz  NOT NULL DEFAULT '-infinity'
);
COMMENT ON COLUMN vendor_session.renewing_until IS 'until then one process obtains a session and all others wait';

ALTER TABLE quarantined_bars ADD COLUMN released_at timestamptz;
COMMENT ON COLUMN quarantined_bars.released_at IS 'when somebody decided that the bar is true after all';

ALTER TABLE corporate_actions
    ADD COLUMN restated_at    timestamptz,
    ADD COLUMN bars_restated  integer,
    ADD COLUMN evidence       text,
    ADD COLUMN correlation_id text;
COMMENT ON COLUMN corporate_actions.restated_at IS 'splits: since when all stored bars stand on the new basis';
COMMENT ON COLUMN corporate_actions.evidence IS
    'splits: event = the vendor announced it; ratio = only its prices showed it';
