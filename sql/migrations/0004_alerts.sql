-- What people were told, or will be: one row for each time that something was late, failed, stale or wrong.

CREATE TABLE alerts (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key              text         NOT NULL,
    condition        text         NOT NULL,
    kind             text         NOT NULL,
    severity         text         NOT NULL CHECK (severity IN ('critical', 'warning', 'info')),
    dag_id           text,
    run_id           text,
    subject          text         NOT NULL,
    details          jsonb        NOT NULL,
    opened_at        timestamptz  NOT NULL DEFAULT clock_timestamp(),
    last_seen_at     timestamptz  NOT NULL DEFAULT clock_timestamp(),
    resolved_at      timestamptz,
    due_at           timestamptz,
    sent_at          timestamptz,
    recovery_due_at  timestamptz,
    claimed_until    timestamptz
);
COMMENT ON COLUMN alerts.key IS 'what the alert is about; at most one open alert has it';
COMMENT ON COLUMN alerts.condition IS 'alerts of one condition share a quiet period; mostly the key';
COMMENT ON COLUMN alerts.resolved_at IS 'null = still so; of a mere event, its own instant';
COMMENT ON COLUMN alerts.due_at IS 'a mail about it is to be sent from then on; null = none is';
COMMENT ON COLUMN alerts.sent_at IS 'when the mail server took the last mail about it';
COMMENT ON COLUMN alerts.recovery_due_at IS 'the mail that it is over is to be sent from then on; null = none is';
COMMENT ON COLUMN alerts.claimed_until IS 'until then one process is sending its mail';

CREATE UNIQUE INDEX alerts_one_open ON alerts (key) WHERE resolved_at IS NULL;
CREATE INDEX alerts_key ON alerts (key);
CREATE INDEX alerts_condition ON alerts (condition, sent_at);
CREATE INDEX alerts_to_send ON alerts (id) WHERE due_at IS NOT NULL OR recovery_due_at IS NOT NULL;
