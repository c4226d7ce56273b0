-- How many rows, and a checksum over all their values.
SELECT count(*), md5(string_agg(line, E'\n' ORDER BY line))
FROM (SELECT staged::text COLLATE "C" FROM {staged} AS staged) AS lines (line)
