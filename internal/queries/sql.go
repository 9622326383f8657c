package queries

import (
	"fmt"
	"strings"
)

// sqlNoSeqScan keeps the planner from scanning a whole table for the rows of a batch. A plan that was made while a
// rebuild's table was small would stay, and make the rebuild quadratic.
const sqlNoSeqScan = `select set_config('enable_seqscan', 'off', true)`

// sqlPrepareLoad is sqlNoSeqScan, and says the log's epoch.
const sqlPrepareLoad = `select epoch, set_config('enable_seqscan', 'off', true) from log where id = 1`

// A folded view's statements: table, key and columns are its own, the rest is the same for all.
const (
	sqlFoldLoad   = `select %[2]s from %[1]s where %[3]s = any($1)`
	sqlFoldCheck  = `select %[3]s, %[6]s from %[1]s where %[3]s = any($1)`
	sqlFoldUpsert = `insert into %[1]s (%[2]s) select * from unnest(%[4]s) on conflict (%[3]s) do %[5]s`
	sqlFoldRemove = `delete from %[1]s where %[3]s = any($1)`
)

func foldStatements(table, key, seen string, columns, places, sets []string) statements {
	onConflict := "nothing"
	if len(sets) > 0 {
		onConflict = "update set " + strings.Join(sets, ", ")
	}
	fill := func(sql string) string {
		return fmt.Sprintf(sql, table, strings.Join(columns, ", "), key, strings.Join(places, ", "), onConflict, seen)
	}
	return statements{load: fill(sqlFoldLoad), check: fill(sqlFoldCheck), upsert: fill(sqlFoldUpsert), remove: fill(sqlFoldRemove)}
}

// sqlServing says which generation serves each of these views, how far each shard of it has come, and how far the log has.
// A shard whose row is missing is at 0, and so is a checkpoint without rows: nobody has come anywhere.
const sqlServing = `
select v.name, v.version, v.generation, v.table_name, coalesce(c.shard, 0) as shard, coalesce(c.shards, 0) as shards,
       coalesce(c.position, 0) as position, c.event_id, c.log_id, coalesce(c.log_epoch, 0) as log_epoch,
       c.halted_at is not null as halted, coalesce(c.halt_reason, '') as halt_reason, c.paused_at is not null as paused,
       coalesce(c.parked, 0) as parked, coalesce(c.parked_changes, 0) as parked_changes,
       head.position as head,
       coalesce((select extract(epoch from greatest(clock_timestamp() - e.recorded_at, interval '0'))::float8
                 from events e where e.position = oldest.position + 1), 0) as behind_seconds
from views v left join checkpoints c on c.name = v.table_name
cross join lateral (select case when count(*) < max(all_of.shards) then 0 else coalesce(min(all_of.position), 0) end as position
                    from checkpoints all_of where all_of.name = v.table_name) oldest
cross join (select coalesce(max(position), 0) as position from events) head
where v.name = any($1)
order by v.name, c.shard`

// sqlParked says which streams are parked in the shards of checkpoints, and of which change that is. A shard without any is
// one row of an empty stream.
const sqlParked = `
select c.name, c.shard, c.parked_changes, c.parked_moved, coalesce(p.stream, ''), coalesce(p.position, 0),
       coalesce(p.parked_at, c.updated_at)
from checkpoints c left join parked_streams p on p.checkpoint = c.name and p.shard = c.shard
where c.name = any($1)`

// sqlParkedChanges says whether that is worth a look, and how far each shard is.
const sqlParkedChanges = `select shard, parked_changes, position from checkpoints where name = $1`

const (
	// sqlLookAtPrimary says how far the write-ahead log is, what is visible but not written yet included, whose log it is, and
	// whether the epoch is known to be that of the timeline: after a failover it is raised with the next append.
	sqlLookAtPrimary = `
select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, (select system_identifier from pg_control_system()),
       log_id, epoch, coalesce((select max(position) from events), 0),
       timeline in (0, ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int)
from log where id = 1`

	// sqlLookAtReplica is the same of what a standby has replayed.
	sqlLookAtReplica = `
select pg_is_in_recovery(), coalesce(pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0'), 0)::bigint,
       (select system_identifier from pg_control_system()), log_id, epoch
from log where id = 1`

	// Between these two all statements see the same. Whether it is still in recovery, a standby is asked within: a
	// snapshot that was taken before it was promoted is of the primary's history.
	sqlBeginSnapshot = `begin isolation level repeatable read read only`
	sqlEndSnapshot   = `commit`
	sqlHoldView      = `lock table %[1]s in access share mode` // takes no snapshot, and is allowed on a standby

	sqlPlanFreely = `select set_config('plan_cache_mode', 'auto', true)`

	// sqlReplicaState says, too, how many of the events with positions $1 and ids $2 are there, and whether view $3 lacks
	// events of parked streams, which its checkpoint says nothing of. What is asked next is planned once for all, which is
	// most of what it costs, until sqlPlanFreely.
	sqlReplicaState = `
select set_config('plan_cache_mode', 'force_generic_plan', true), pg_is_in_recovery(), log_id, epoch, (
	select count(*) from unnest($1::bigint[], $2::uuid[]) as token (position, id)
	join events on events.position = token.position and events.id = token.id), exists (
	select from views join parked_streams on parked_streams.checkpoint = views.table_name where views.name = $3)
from log where id = 1`
)

// sqlGenerations says which version, generation and table serves, and which generation is the newest of version $2 (0: there
// is no table of it).
const sqlGenerations = `
select v.version, v.generation, v.table_name,
       coalesce((select max(coalesce(substring(t.tablename from '_v[0-9]+_([0-9]+)$')::int, 1)) from pg_tables t
                 where t.schemaname = current_schema()
                   and t.tablename ~ ('^' || v.name || '_v' || $2::int::text || '(_[0-9]+)?$')), 0) as newest
from views v where v.name = $1`

// A table's generation, from its name.
const sqlGeneration = `coalesce(substring(t.tablename from '_v[0-9]+_([0-9]+)$')::int, 1)`

// sqlTables is a view's tables of one version: the view is $1, the version $2.
const sqlTables = ` from pg_tables t where t.schemaname = current_schema()
  and t.tablename ~ ('^' || $1::text || '_v' || $2::int::text || '(_[0-9]+)?$')`

const (
	// sqlNotServing is the newest generation of a version that is not table $3; with $4 above 0, that generation.
	sqlNotServing = `select ` + sqlGeneration + ` as generation` + sqlTables + `
  and t.tablename <> $3 and ($4::int = 0 or ` + sqlGeneration + ` = $4::int)
order by generation desc limit 1`

	// sqlHalfFull is a generation of a version that an earlier rebuild has begun to fill.
	sqlHalfFull = `select ` + sqlGeneration + ` as generation` + sqlTables + `
  and exists (select from checkpoints c where c.name = t.tablename || '.fill')
order by generation desc limit 1`

	// sqlPrevious is the table that the serving one, $3, replaced, and its generation: 0 when it is of another version than
	// $2.
	sqlPrevious = `
select v.previous, coalesce((select ` + sqlGeneration + sqlTables + ` and t.tablename = v.previous), 0)
from views v where v.name = $1 and v.previous <> $3 and to_regclass(quote_ident(v.previous)) is not null`
)

const (
	// sqlLockView keeps others from switching the view, and says which table serves.
	sqlLockView = `select table_name from views where name = $1 for update`

	// sqlBusyRebuild finds a table of the view that a rebuild which is alive fills.
	sqlBusyRebuild = `
select regexp_replace(name, '[.]fill$', '') from checkpoints
where name ~ ('^' || $1::text || '_v[0-9]+(_[0-9]+)?([.]fill)?$')
  and lease_owner like 'rebuild %' and lease_until > clock_timestamp() limit 1`

	// sqlTableOptions gives a table's storage options, which LIKE does not copy, as they are written.
	sqlTableOptions = `select coalesce(array_to_string(reloptions, ', '), '') from pg_class where oid = to_regclass(quote_ident($1))`

	// sqlIndexes lists a table's indexes: the definition, that of the constraint it stands for if any, and whether it keeps
	// rows unique. Two indexes are alike when what comes after USING is.
	sqlIndexes = `
select pg_get_indexdef(i.indexrelid), coalesce(pg_get_constraintdef(c.oid), ''), i.indisunique or c.oid is not null
from pg_index i left join pg_constraint c on c.conindid = i.indexrelid and c.contype in ('p', 'u', 'x')
where i.indrelid = to_regclass(quote_ident($1)) order by i.indisprimary desc, i.indexrelid`

	sqlCreateLike    = `create table %[1]s (like %[2]s including all excluding indexes)`
	sqlAddConstraint = `alter table %[1]s add %[2]s`
	sqlCreateIndex   = `create %[3]sindex on %[1]s using %[2]s`
	sqlAnalyze       = `analyze %[1]s`
	sqlSetOptions    = `alter table %[1]s set (%[2]s)`
	sqlDropTable     = `drop table if exists %[1]s`
	sqlEmptyTable    = `truncate %[1]s`
	// sqlDropCheckpoint also takes away what waits for it and what it passed over.
	sqlDropCheckpoint = `
with parked as (delete from parked_streams where checkpoint = $1), skipped as (delete from skipped_events where checkpoint = $1)
delete from checkpoints where name in ($1, $1 || '.fill')`
	sqlReplaceView = `create or replace view %[1]s as select * from %[2]s`
	sqlRemakeView  = `drop view %[1]s; create view %[1]s as select * from %[2]s`
	sqlServe       = `update views set previous = table_name, version = $2, generation = $3 where name = $1`

	// A projection is replayed from the log, so that it may lose its last moments in a crash.
	sqlAsyncCommit = `set local synchronous_commit = off`
	// sqlLockTimeout bounds how long a transaction that readers and servers wait for waits itself, and for how long it holds them
	// up when its process froze or lost its network in the middle of it.
	sqlLockTimeout = `select set_config('lock_timeout', '2s', true), set_config('idle_in_transaction_session_timeout', '30s', true)`
)

// The checkpoints of a table that is being filled; see fillSuffix.
const (
	// sqlMarkFilling holds all rows of checkpoint $1, made when there is none, so that no consumer takes them.
	sqlMarkFilling = `
with held as (
    update checkpoints set lease_owner = 'filling', lease_until = 'infinity', lease_epoch = lease_epoch + 1,
           updated_at = clock_timestamp()
    where name = $1 returning name
)
insert into checkpoints (name, lease_owner, lease_until, lease_epoch)
select $1, 'filling', 'infinity', 1 where not exists (select from held)`

	sqlLockCheckpoints = `
select shard, position, event_id, log_id, log_epoch, lease_epoch from checkpoints where name = $1 order by shard for update`

	// sqlClaimWorker takes a worker's checkpoint: name, shard, shards, position, event id, log id, log epoch, owner, lease
	// epoch, seconds.
	sqlClaimWorker = `
insert into checkpoints (name, shard, shards, position, event_id, log_id, log_epoch, lease_owner, lease_epoch, lease_until)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_timestamp() + make_interval(secs => $10))
on conflict (name, shard) do update
set lease_owner = excluded.lease_owner, lease_epoch = excluded.lease_epoch, lease_until = excluded.lease_until,
    updated_at = clock_timestamp()`

	// sqlMoveWorker moves shard $2 of checkpoint $1 from position $8, and renews its lease for $9 seconds. It matches no row
	// when the lease was lost.
	sqlMoveWorker = `
update checkpoints set position = $3, event_id = $4, log_id = $5, log_epoch = $6, updated_at = clock_timestamp(),
       lease_until = clock_timestamp() + make_interval(secs => $9)
where name = $1 and shard = $2 and lease_epoch = $7 and position = $8`

	// sqlRenewFill renews what owner $2 holds of checkpoint $1 for $3 seconds.
	sqlRenewFill = `
update checkpoints set lease_until = clock_timestamp() + make_interval(secs => $3) where name = $1 and lease_owner = $2`

	sqlFreeFill = `update checkpoints set lease_owner = null, lease_until = '-infinity' where name = $1 and lease_owner = $2`

	// sqlEndFill takes the workers' checkpoints out, which stand at position $3.
	sqlEndFill = `delete from checkpoints where name = $1 and lease_owner = $2 and position = $3`

	// sqlTakeOut takes a checkpoint's rows out and says their highest lease epoch.
	sqlTakeOut = `
with old as (delete from checkpoints where name = $1 returning lease_epoch) select coalesce(max(lease_epoch), 0) from old`

	// sqlPutIn makes the rows of checkpoint $1 in $2 shards: position, event id (zero: none), log id, log epoch, owner
	// (empty: none) for good, lease epoch. The count of changes of parked streams goes on from the clock, so that no process
	// takes it for one that it knows.
	sqlPutIn = `
insert into checkpoints (name, shard, shards, position, event_id, log_id, log_epoch, lease_owner, lease_epoch, lease_until,
                         parked, parked_changes, parked_moved)
select $1, s.shard, $2, $3::bigint, nullif($4, '00000000-0000-0000-0000-000000000000'::uuid),
       nullif($5, '00000000-0000-0000-0000-000000000000'::uuid), $6, nullif($7, ''), $8,
       case when $7 = '' then timestamptz '-infinity' else 'infinity' end,
       p.streams, case when p.streams > 0 then (extract(epoch from clock_timestamp()) * 1000)::bigint else 0 end,
       case when p.streams > 0 then $3::bigint else 0 end
from generate_series(0, $2 - 1) s (shard)
cross join lateral (select count(*) as streams from parked_streams p where p.checkpoint = $1 and p.shard = s.shard) p`

	// sqlDivideParked sets the shards of streams that wait in checkpoint $1.
	sqlDivideParked = `
update parked_streams p set shard = s.shard from unnest($2::text[], $3::smallint[]) s (stream, shard)
where p.checkpoint = $1 and p.stream = s.stream and p.shard <> s.shard`

	// What a fill could not apply: see OnFailure.
	sqlParkedOf   = `select stream from parked_streams where checkpoint = $1`
	sqlParkStream = `
insert into parked_streams (checkpoint, shard, stream, position, event_id, type, types, reason)
values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing`
	sqlSkipEvent = `
insert into skipped_events (checkpoint, position, event_id, stream, type, reason, skipped_by)
values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing`
	sqlDropParked  = `delete from parked_streams where checkpoint = $1`
	sqlDropSkipped = `delete from skipped_events where checkpoint = $1`
)

// sqlRetire takes all shards of a checkpoint from their consumers for good and says how far the foremost had come; 0 when
// it never ran.
const sqlRetire = `
with retired as (
    update checkpoints set lease_epoch = lease_epoch + 1, lease_owner = 'retired', lease_until = 'infinity',
           updated_at = clock_timestamp()
    where name = $1 returning position
)
select coalesce(max(position), 0) from retired`

const (
	// sqlCheckpointOf is $1 itself when there is such a checkpoint, or else the serving table of view $1; then whether there is
	// either. The checkpoint of a serving table may be yet to come.
	sqlCheckpointOf = `
select case when c.there then $1 else coalesce((select table_name from views where name = $1), $1) end,
       c.there or exists (select from views where $1 in (name, table_name))
from (select exists (select from checkpoints where name = $1) as there) c`

	// sqlPause pauses checkpoint $1 for $2 and takes its lease away, unless that says that the table is kept or filled.
	sqlPause = `
update checkpoints set paused_at = coalesce(paused_at, clock_timestamp()), paused_by = coalesce(paused_by, $2),
       lease_epoch = lease_epoch + 1, lease_owner = null, lease_until = '-infinity', updated_at = clock_timestamp()
where name = $1 and (lease_owner is null or lease_owner not in ('retired', 'filling') and name not like '%.fill' and lease_owner not like 'rebuild %')`

	sqlResume = `
update checkpoints set paused_at = null, paused_by = null, halted_at = null, halt_reason = null, updated_at = clock_timestamp()
where name = $1 and (paused_at is not null or halted_at is not null)`
)

// sqlLoad says how many bytes of WAL were written since the cluster was made, and how many seconds old the oldest event is
// that a serving projection, a policy or a relay has not taken, if somebody is at work on it. Tables that do not serve
// may be behind.
const sqlLoad = `
select (pg_current_wal_lsn() - '0/0')::float8,
       coalesce(max(extract(epoch from greatest(clock_timestamp() - e.recorded_at, interval '0'))), 0)::float8
from checkpoints c join events e on e.position = c.position + 1
where c.lease_until > clock_timestamp() and c.lease_until < 'infinity' and c.lease_owner not like 'rebuild %'
  and not exists (select from views v where c.name ~ ('^' || v.name || '_v[0-9]+(_[0-9]+)?$') and c.name <> v.table_name)`

// sqlListTables lists all views' tables. The names of half filled ones' checkpoints are those of workers.
const sqlListTables = `
select v.name as view, t.tablename as name, substring(t.tablename from '_v([0-9]+)(?:_[0-9]+)?$')::int as version,
       ` + sqlGeneration + ` as generation,
       case when t.tablename = v.table_name then 'serving'
            when f.alive then 'filling'
            when f.alive is not null then 'half filled'
            when c.alive then 'up to date'
            else 'kept' end as state,
       coalesce(t.tablename = v.previous, false) as previous,
       coalesce(f.position, c.position, 0) as position, (select coalesce(max(position), 0) from events) as head,
       greatest(k.reltuples, 0)::bigint as rows, pg_total_relation_size(k.oid) as bytes
from views v
join pg_tables t on t.schemaname = current_schema() and t.tablename ~ ('^' || v.name || '_v[0-9]+(_[0-9]+)?$')
join pg_class k on k.oid = to_regclass(quote_ident(t.tablename))
cross join lateral (select min(position) as position, bool_or(lease_until > clock_timestamp() and lease_until < 'infinity') as alive
                    from checkpoints where name = t.tablename) c
cross join lateral (select min(position) as position, bool_or(lease_until > clock_timestamp()) as alive
                    from checkpoints where name = t.tablename || '.fill') f
order by v.name, version, generation`

const (
	// sqlLockViewOf locks the view that table $1 is of, and says what serves, whether there is that table, and whether it is
	// the only one of a version newer than the one that serves.
	sqlLockViewOf = `
select v.table_name, to_regclass(quote_ident($1)) is not null, v.version < it.version::numeric and not exists (
	select from pg_tables t where t.schemaname = current_schema() and t.tablename <> $1
	and t.tablename ~ ('^' || v.name || '_v' || it.version || '(_[0-9]+)?$'))
from views v cross join (select substring($1 from '_v([0-9]+)(?:_[0-9]+)?$') as version) it
where $1 ~ ('^' || v.name || '_v[0-9]+(_[0-9]+)?$') for update of v`

	// sqlAtWork finds somebody who is at work on table $1.
	sqlAtWork = `
select lease_owner, max(lease_until) from checkpoints
where name in ($1, $1 || '.fill') and lease_owner is not null and lease_until > clock_timestamp() and lease_until < 'infinity'
group by 1 limit 1`

	// sqlGrants lists what others than the owner may do with a table, as the ends of statements.
	sqlGrants = `
select a.privilege_type, coalesce(quote_ident(r.rolname), 'public'), a.is_grantable
from pg_class c cross join lateral aclexplode(c.relacl) a left join pg_roles r on r.oid = a.grantee
where c.oid = to_regclass(quote_ident($1)) and a.grantee <> c.relowner`

	sqlGrant = `grant %[2]s on %[1]s to %[3]s`
)

// sqlLags is how far each row of each checkpoint is, and each view that was never begun. Of a table that is being filled it
// is how far its workers are. It is written so that the planner expects few rows: else it compiles the statement first, which
// takes seconds where running it takes milliseconds.
const sqlLags = `
select named.name, coalesce(c.shard, 0) as shard, coalesce(c.shards, 1) as shards,
       case when v.name is not null then 'VIEW' when named.name ~ '^relay(_|$)' then 'RELAY' else 'POLICY' end as kind,
       coalesce(v.name, '') as view, coalesce(c.position, 0) as position,
       (select coalesce(max(position), 0) from events) as head,
       coalesce((select (extract(epoch from greatest(clock_timestamp() - e.recorded_at, interval '0')) * 1000)::bigint
                 from events e where e.position = coalesce(c.position, 0) + 1), 0) as milliseconds_behind,
       coalesce((select (extract(epoch from greatest(clock_timestamp() - e.recorded_at, interval '0')) * 1000)::bigint
                 from events e where e.position = 1), 0) as milliseconds_of_all,
       case when c.lease_until > clock_timestamp() and c.lease_owner not in ('retired', 'filling') then c.lease_owner else '' end as owner,
       now_is.state,
       case now_is.state
            when 'HALTED' then coalesce(c.halt_reason, '')
            when 'PAUSED' then 'paused' || coalesce(' by ' || c.paused_by, '')
            when 'RETIRED' then case when named.name like '%.fill' then 'its table is half filled, and no rebuild is at work on it'
                                else 'its table does not serve' end
            when 'UNOWNED' then case when c.name is null then 'it was never begun' else 'nobody works on it' end
            else '' end as reason,
       coalesce(c.parked, 0) as parked
from checkpoints c
full join views served on served.table_name = c.name
cross join lateral (select coalesce(c.name, served.table_name) as name) named
left join views v on named.name ~ ('^' || v.name || '_v[0-9]+(_[0-9]+)?([.]fill)?$')
cross join lateral (select case
    when c.lease_owner in ('retired', 'filling') then 'RETIRED'
    when c.lease_owner like 'rebuild %' and c.lease_until > clock_timestamp() then 'REBUILDING'
    when c.halted_at is not null then 'HALTED'
    when c.paused_at is not null then 'PAUSED'
    when c.lease_until > clock_timestamp() then 'WORKING'
    when v.table_name <> named.name then 'RETIRED'
    else 'UNOWNED' end as state) now_is
where not exists (select from checkpoints f where f.name = c.name || '.fill')
order by named.name, c.shard`

// sqlBehind is how many events come after position $1, and how old the first of them is.
const sqlBehind = `
select greatest((select coalesce(max(position), 0) from events) - $1, 0),
       coalesce((select (extract(epoch from greatest(clock_timestamp() - e.recorded_at, interval '0')) * 1000)::bigint
                 from events e where e.position = $1 + 1), 0)`

// The statements of a comparison. In those with verbs, tables, keys and columns are put in, and values are parameters.
const (
	sqlPositions = `select position, parked from checkpoints where name = $1 order by shard`

	// sqlDiffColumns lists a table's columns: whether the type has an equality, and the place in the primary key.
	sqlDiffColumns = `
select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type,
       a.atttypid::regtype::text not in ('json', 'xml', 'point', 'line', 'lseg', 'box', 'path', 'polygon', 'circle') as plain,
       coalesce(array_position(i.indkey::int2[], a.attnum) + 1, 0) as key
from pg_attribute a left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
where a.attrelid = to_regclass(quote_ident($1)) and a.attnum > 0 and not a.attisdropped order by a.attnum`

	sqlRowEstimate = `select greatest(reltuples, 0)::bigint from pg_class where oid = to_regclass(quote_ident($1))`

	// sqlChunkEnd is the last key of a chunk: tables, key, condition, rows, key as text, rows but one.
	sqlChunkEnd = `
select %[6]s from (
    (select %[3]s from %[1]s where %[4]s order by %[3]s limit %[5]d)
    union all (select %[3]s from %[2]s where %[4]s order by %[3]s limit %[5]d)
) keys order by %[3]s offset %[7]d limit 1`

	// sqlSideBySide is what a chunk's rows are read from: tables, condition, how keys are equal.
	sqlSideBySide = `
from (select true as is_there, s.* from %[1]s s where %[3]s) s full join (select true as is_there, n.* from %[2]s n where %[3]s) n on %[4]s`

	// sqlSample shows rows that differ: key, which columns do, their old and new values; then what they are read from, the
	// condition, and how many.
	sqlSample = `select %[1]s, %[2]s, %[3]s, %[4]s %[5]s where %[6]s order by 1 limit %[7]d`
)
