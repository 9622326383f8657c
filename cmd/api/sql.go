package main

// sqlStatementTimeout bounds each statement of this session, to $1 milliseconds, if the session is this connection's own:
// the process that answers has the id $2 which the connection was given. A pooler gives ids of its own, and there the
// setting would stay with a connection to Postgres that others use next.
const sqlStatementTimeout = `select set_config('statement_timeout', $1, false) where pg_backend_pid() = $2::bigint`

// sqlServer is what of the server's settings and of this role's privileges matters.
const sqlServer = `
select current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit'),
	current_setting('default_transaction_isolation'), current_setting('wal_level'), current_setting('max_connections')::int,
	has_table_privilege('events', 'select, insert') and has_table_privilege('log', 'update'),
	has_table_privilege('epochs', 'insert'), has_table_privilege('checkpoints', 'update')`
