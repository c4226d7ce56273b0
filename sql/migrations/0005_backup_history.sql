-- Backups of this database: the good ones, and the tries that came to nothing.

CREATE TABLE backup_history (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at   timestamptz  NOT NULL,
    finished_at  timestamptz  NOT NULL,
    file         text         NOT NULL,
    bytes        bigint,
    rows         bigint,
    verified_at  timestamptz,
    error        text,
    CHECK ((verified_at IS NULL) = (error IS NOT NULL)),
    CHECK (verified_at IS NULL OR (bytes IS NOT NULL AND rows IS NOT NULL))
);
COMMENT ON COLUMN backup_history.verified_at IS
    'when it had been restored into an empty database and compared; null = it is not good';
COMMENT ON COLUMN backup_history.rows IS 'of all its tables';
