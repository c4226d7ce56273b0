-- As restate_bars.sql does, for bars that come back from an archive.
UPDATE {staged} SET
    open = open / %(ratio)s, high = high / %(ratio)s, low = low / %(ratio)s, close = close / %(ratio)s,
    volume = round(volume * %(ratio)s)
WHERE timestamp < %(before)s
