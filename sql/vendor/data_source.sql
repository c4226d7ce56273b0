SELECT source FROM data_source
