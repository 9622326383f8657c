package main

// checkpointsSQL lists how far each projection, policy and leased relay is behind the head of the log, and who works
// on it by the database's clock.
const checkpointsSQL = `
select name, position, greatest((select coalesce(max(position), 0) from events) - position, 0),
       case when lease_until > now() then coalesce(lease_owner, '') else '' end,
       case when halted_at is not null then 'halted: ' || coalesce(halt_reason, '')
            when lease_owner = 'retired' then 'replaced by a rebuild'
            when lease_until > now() then 'working'
            else 'nobody works on it' end
from checkpoints order by name`

// resumeSQL lets the checkpoint $1 be taken again.
const resumeSQL = `update checkpoints set halted_at = null, halt_reason = null where name = $1 and halted_at is not null`

// sqlStatementTimeout bounds each statement of this session, to $1 milliseconds, if the session is this connection's own:
// the process that answers has the id $2 which the connection was given. A pooler gives ids of its own, and there the
// setting would stay with a connection to Postgres that others use next.
const sqlStatementTimeout = `select set_config('statement_timeout', $1, false) where pg_backend_pid() = $2::bigint`
