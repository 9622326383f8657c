package main

// checkpointsSQL lists how far each projection, policy and leased relay is behind the head of the log, and who works
// on it by the database's clock.
const checkpointsSQL = `
select name, shard, shards, position, head, greatest(head - position, 0) as behind,
       coalesce((select extract(epoch from greatest(clock_timestamp() - e.recorded_at, interval '0')) * 1000
                 from events e where e.position = c.position + 1), 0)::bigint as milliseconds,
       case when lease_until > now() and lease_until < 'infinity' then coalesce(lease_owner, '') else '' end as owner,
       case when halted_at is not null then 'halted'
            when paused_at is not null then 'paused'
            when lease_owner = 'filling' then 'being filled'
            when lease_owner = 'retired' then 'kept'
            when lease_until > now() then 'working'
            else 'nobody works on it' end as state,
       case when halted_at is not null then coalesce(halt_reason, '')
            when paused_at is not null then 'by ' || coalesce(paused_by, 'somebody') || ' at ' || to_char(paused_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
            end as reason
from checkpoints c, (select coalesce(max(position), 0) as head from events) h order by name, shard`

// sqlStatementTimeout bounds each statement of this session, to $1 milliseconds, if the session is this connection's own:
// the process that answers has the id $2 which the connection was given. A pooler gives ids of its own, and there the
// setting would stay with a connection to Postgres that others use next.
const sqlStatementTimeout = `select set_config('statement_timeout', $1, false) where pg_backend_pid() = $2::bigint`
