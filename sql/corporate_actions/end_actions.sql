-- Corporate actions that are not among those given go into their history, and so do splits for which stored
-- bars were restated: the bars that come now stand on the new basis as they are.
WITH ended AS (
    DELETE FROM corporate_actions AS action
    WHERE symbol = %(symbol)s AND (
        applied <> 1
        OR NOT EXISTS (
            SELECT FROM unnest(%(ex_dates)s::date[], %(kinds)s::text[], %(values)s::float8[])
                AS kept (ex_date, kind, value)
            WHERE (kept.ex_date, kept.kind, kept.value) = (action.ex_date, action.kind, action.value)
        )
    )
    RETURNING action
)
-- All columns that both tables have.
INSERT INTO corporate_action_history
SELECT history.*
FROM ended, jsonb_populate_record(
    NULL::corporate_action_history,
    to_jsonb(ended.action)
        || jsonb_build_object('ended_at', clock_timestamp(), 'correlation_id', %(correlation_id)s::text)
) AS history
