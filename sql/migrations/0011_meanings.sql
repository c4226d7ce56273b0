-- Every table and column says what it means; docs/data-dictionary.md is made from these comments.

COMMENT ON TABLE schema_migrations IS 'the migrations that made this schema';
COMMENT ON COLUMN schema_migrations.version IS 'number of the file in sql/migrations/';
COMMENT ON COLUMN schema_migrations.name IS 'name of the file, without .sql';
COMMENT ON COLUMN schema_migrations.checksum IS 'SHA-256 of the file when it was applied';
COMMENT ON COLUMN schema_migrations.applied_at IS 'when it was applied';

COMMENT ON TABLE market_data IS
    'hourly bars on the exchange''s grid, 09:30 to 15:30 New York; adjusted for splits, not for dividends';
COMMENT ON COLUMN market_data.symbol IS 'ticker, in Yahoo''s spelling';
COMMENT ON COLUMN market_data.open IS 'first price, US dollars a share';
COMMENT ON COLUMN market_data.high IS 'highest price, US dollars a share';
COMMENT ON COLUMN market_data.low IS 'lowest price, US dollars a share';
COMMENT ON COLUMN market_data.close IS 'last price, US dollars a share';
COMMENT ON COLUMN market_data.volume IS 'shares traded';
COMMENT ON COLUMN market_data.created_at IS 'when the bar was first stored';
COMMENT ON COLUMN market_data.updated_at IS 'when its values were last written';

COMMENT ON TABLE feature_engineered_data IS
    'the features, one row for each final bar; NULL = not defined for this bar';
COMMENT ON COLUMN feature_engineered_data.symbol IS 'ticker, in Yahoo''s spelling';
COMMENT ON COLUMN feature_engineered_data.timestamp IS 'start of the bar';
COMMENT ON COLUMN feature_engineered_data.feature_version IS
    'version of the definitions that computed the row';
COMMENT ON COLUMN feature_engineered_data.created_at IS 'when the row was first stored';
COMMENT ON COLUMN feature_engineered_data.updated_at IS 'when its values were last written';

COMMENT ON TABLE symbol_state IS 'one row for each symbol: where its bars and features stand';
COMMENT ON COLUMN symbol_state.symbol IS 'ticker, in Yahoo''s spelling';
COMMENT ON COLUMN symbol_state.feature_version IS
    'version of the definitions that computed its features';
COMMENT ON COLUMN symbol_state.last_fetch_at IS 'when bars were last fetched';

COMMENT ON COLUMN bar_revisions.symbol IS 'ticker, in Yahoo''s spelling';
COMMENT ON COLUMN bar_revisions.timestamp IS 'start of the bar';
COMMENT ON COLUMN bar_revisions.seen_at IS 'when the change was seen';
COMMENT ON COLUMN bar_revisions.open IS 'before the change';
COMMENT ON COLUMN bar_revisions.high IS 'before the change';
COMMENT ON COLUMN bar_revisions.low IS 'before the change';
COMMENT ON COLUMN bar_revisions.close IS 'before the change';
COMMENT ON COLUMN bar_revisions.volume IS 'before the change';
COMMENT ON COLUMN bar_revisions.source IS 'yahoo or simulated';
COMMENT ON COLUMN bar_revisions.correlation_id IS 'the run that saw the change';

COMMENT ON COLUMN quarantined_bars.symbol IS 'ticker, in Yahoo''s spelling';
COMMENT ON COLUMN quarantined_bars.timestamp IS 'start of the bar';
COMMENT ON COLUMN quarantined_bars.reason IS 'why it was refused, in words';
COMMENT ON COLUMN quarantined_bars.payload_hash IS 'MD5 of the bar as it came';
COMMENT ON COLUMN quarantined_bars.payload IS 'the bar as it came';
COMMENT ON COLUMN quarantined_bars.first_seen IS 'when it was first refused';
COMMENT ON COLUMN quarantined_bars.last_seen IS 'when it was last refused';
COMMENT ON COLUMN quarantined_bars.correlation_id IS 'the run that first refused it';

COMMENT ON TABLE corporate_actions IS 'splits and dividends as the vendor tells them now';
COMMENT ON COLUMN corporate_actions.symbol IS 'ticker, in Yahoo''s spelling';
COMMENT ON COLUMN corporate_actions.ex_date IS 'first day of trading without it, New York';
COMMENT ON COLUMN corporate_actions.kind IS 'split or dividend';
COMMENT ON COLUMN corporate_actions.first_seen IS 'when it was first seen';
COMMENT ON COLUMN corporate_actions.bars_restated IS 'splits: how many stored bars were restated';
COMMENT ON COLUMN corporate_actions.correlation_id IS 'the run that recorded it';

COMMENT ON COLUMN corporate_action_history.symbol IS 'ticker, in Yahoo''s spelling';
COMMENT ON COLUMN corporate_action_history.ex_date IS 'as it was in corporate_actions';
COMMENT ON COLUMN corporate_action_history.kind IS 'as it was in corporate_actions';
COMMENT ON COLUMN corporate_action_history.value IS 'as it was in corporate_actions';
COMMENT ON COLUMN corporate_action_history.first_seen IS 'as it was in corporate_actions';
COMMENT ON COLUMN corporate_action_history.restated_at IS 'as it was in corporate_actions';
COMMENT ON COLUMN corporate_action_history.applied IS 'as it was in corporate_actions';
COMMENT ON COLUMN corporate_action_history.evidence IS 'as it was in corporate_actions';
COMMENT ON COLUMN corporate_action_history.ended_at IS 'when the run saw that it had ended';
COMMENT ON COLUMN corporate_action_history.correlation_id IS 'the run that saw it';

COMMENT ON COLUMN restatements.id IS 'in the order in which they were done';
COMMENT ON COLUMN restatements.symbol IS 'ticker, in Yahoo''s spelling';
COMMENT ON COLUMN restatements.ex_date IS 'ex-date of the split, New York';
COMMENT ON COLUMN restatements.bars IS 'how many bars were restated';
COMMENT ON COLUMN restatements.restated_at IS 'when it was done';
COMMENT ON COLUMN restatements.correlation_id IS 'the run that did it';

COMMENT ON COLUMN lookback_bars.symbol IS 'ticker, in Yahoo''s spelling';
COMMENT ON COLUMN lookback_bars.timestamp IS 'start of the bar';
COMMENT ON COLUMN lookback_bars.open IS 'first price, US dollars a share';
COMMENT ON COLUMN lookback_bars.high IS 'highest price, US dollars a share';
COMMENT ON COLUMN lookback_bars.low IS 'lowest price, US dollars a share';
COMMENT ON COLUMN lookback_bars.close IS 'last price, US dollars a share';
COMMENT ON COLUMN lookback_bars.volume IS 'shares traded';

COMMENT ON COLUMN processing_history.dag_id IS 'the DAG; cli = the command line';
COMMENT ON COLUMN processing_history.run_id IS 'Airflow''s run id, or one of its own for each command';
COMMENT ON COLUMN processing_history.step IS 'collect_symbol, compute_features or reload_symbol';
COMMENT ON COLUMN processing_history.symbol IS 'ticker, in Yahoo''s spelling';
COMMENT ON COLUMN processing_history.try IS 'number of the try, from 1';
COMMENT ON COLUMN processing_history.correlation_id IS
    'twelve characters in every log line and row of the run';
COMMENT ON COLUMN processing_history.started_at IS 'when the try began';
COMMENT ON COLUMN processing_history.finished_at IS
    'when it ended; NULL = it runs, or was killed and nobody recorded it';
COMMENT ON COLUMN processing_history.status IS
    'running, ok, error, timeout, out_of_memory, crashed or cancelled';
COMMENT ON COLUMN processing_history.rows_written IS 'rows that the try wrote';
COMMENT ON COLUMN processing_history.cpu_seconds IS 'processor time, seconds';
COMMENT ON COLUMN processing_history.peak_memory_bytes IS
    'largest resident memory of the process, bytes';
COMMENT ON COLUMN processing_history.error IS 'why it failed, in words';

COMMENT ON TABLE request_clock IS 'when a vendor may be asked again, over all processes and machines';
COMMENT ON COLUMN request_clock.vendor IS 'whom the requests go to';
COMMENT ON COLUMN request_clock.next_slot IS 'when the next request may be sent';
COMMENT ON COLUMN request_clock.not_before IS
    'nobody asks before it: the vendor refused, or asked for a pause';
COMMENT ON COLUMN request_clock.refusals IS 'pauses in a row';

COMMENT ON TABLE request_queue IS 'who waits for the next request';
COMMENT ON COLUMN request_queue.waiter IS 'the process that waits';
COMMENT ON COLUMN request_queue.vendor IS 'as in request_clock';
COMMENT ON COLUMN request_queue.since IS 'when it began to wait';
COMMENT ON COLUMN request_queue.alive_until IS 'it is forgotten when this has passed';

COMMENT ON TABLE vendor_session IS 'the anonymous session with the vendor, shared by all processes';
COMMENT ON COLUMN vendor_session.server IS 'the server that gave it';
COMMENT ON COLUMN vendor_session.cookies IS 'its cookies';
COMMENT ON COLUMN vendor_session.crumb IS 'the token that requests carry';
COMMENT ON COLUMN vendor_session.obtained_at IS 'when it was obtained';

COMMENT ON TABLE data_source IS 'which kind of data this database holds';
COMMENT ON COLUMN data_source.only_row IS 'keeps the table at one row';
COMMENT ON COLUMN data_source.source IS 'yahoo or simulated';

COMMENT ON TABLE alerts IS 'what people were told, or will be';
COMMENT ON COLUMN alerts.id IS 'number of the alert';
COMMENT ON COLUMN alerts.kind IS 'as in docs/alerts.md';
COMMENT ON COLUMN alerts.severity IS 'critical, warning or info';
COMMENT ON COLUMN alerts.dag_id IS 'the DAG that it is about';
COMMENT ON COLUMN alerts.run_id IS 'the run that it is about';
COMMENT ON COLUMN alerts.subject IS 'subject of the mail';
COMMENT ON COLUMN alerts.details IS 'what the mail says';
COMMENT ON COLUMN alerts.opened_at IS 'since when it is so';
COMMENT ON COLUMN alerts.last_seen_at IS 'when a run last saw that it is so';

COMMENT ON TABLE backup_history IS 'backups of this database, good and failed';
COMMENT ON COLUMN backup_history.id IS 'number of the try';
COMMENT ON COLUMN backup_history.started_at IS 'when the try began';
COMMENT ON COLUMN backup_history.finished_at IS 'when it ended';
COMMENT ON COLUMN backup_history.file IS 'path of the dump';
COMMENT ON COLUMN backup_history.bytes IS 'size of the dump';
COMMENT ON COLUMN backup_history.error IS 'why it failed, in words';

COMMENT ON COLUMN table_sizes.name IS 'the table';
COMMENT ON COLUMN table_sizes.measured_at IS 'when it was measured';
COMMENT ON COLUMN table_sizes.bytes IS 'size with its indexes';
COMMENT ON COLUMN table_sizes.rows IS 'rows, estimated';
