-- How many of the asked symbols have a final bar from an instant on.
SELECT count(*) FROM unnest(%(symbols)s::text[]) AS asked (symbol)
WHERE EXISTS (
    SELECT FROM market_data
    WHERE market_data.symbol = asked.symbol AND timestamp >= %(since)s AND is_final
)
