-- Which kind of data this database holds; no row before the first bar.
SELECT source FROM data_source
