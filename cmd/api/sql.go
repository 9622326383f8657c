package main

// sqlStatementTimeout bounds each statement of this session, to $1 milliseconds, if the session is this connection's own:
// the process that answers has the id $2 which the connection was given. A pooler gives ids of its own, and there the
// setting would stay with a connection to Postgres that others use next.
const sqlStatementTimeout = `select set_config('statement_timeout', $1, false) where pg_backend_pid() = $2::bigint`
