-- Connections of this role, and how many it may have.
SELECT
    (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user),
    CASE WHEN rolconnlimit >= 0 THEN rolconnlimit ELSE current_setting('max_connections')::integer END
FROM pg_roles WHERE rolname = current_user
