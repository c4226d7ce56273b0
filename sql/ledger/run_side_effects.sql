-- What the run found beside its bars.
SELECT
    (SELECT count(*) FROM bar_revisions WHERE correlation_id = ANY (%(ids)s)) AS revised,
    (SELECT count(*) FROM quarantined_bars WHERE correlation_id = ANY (%(ids)s)) AS refused
