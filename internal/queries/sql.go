package queries

import (
	"fmt"
	"strings"
)

// sqlNoSeqScan keeps the planner from scanning a whole table for the rows of a batch. A plan that was made while a
// rebuild's table was small would stay, and make the rebuild quadratic.
const sqlNoSeqScan = `select set_config('enable_seqscan', 'off', true)`

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
       head.position as head,
       coalesce((select extract(epoch from greatest(clock_timestamp() - e.recorded_at, interval '0'))::float8
                 from events e where e.position = oldest.position + 1), 0) as behind_seconds
from views v left join checkpoints c on c.name = v.table_name
cross join lateral (select case when count(*) < max(all_of.shards) then 0 else coalesce(min(all_of.position), 0) end as position
                    from checkpoints all_of where all_of.name = v.table_name) oldest
cross join (select coalesce(max(position), 0) as position from events) head
where v.name = any($1)
order by v.name, c.shard`

// sqlGenerations says which version, generation and table serves, and which generation is the newest of version $2 (0: there
// is no table of it).
const sqlGenerations = `
select v.version, v.generation, v.table_name,
       coalesce((select max(coalesce(substring(t.tablename from '_v[0-9]+_([0-9]+)$')::int, 1)) from pg_tables t
                 where t.schemaname = current_schema()
                   and t.tablename ~ ('^' || v.name || '_v' || $2::int::text || '(_[0-9]+)?$')), 0) as newest
from views v where v.name = $1`

// sqlPrevious is the newest generation of a version but for the serving one.
const sqlPrevious = `
select coalesce(substring(t.tablename from '_v[0-9]+_([0-9]+)$')::int, 1) as generation from pg_tables t
where t.schemaname = current_schema() and t.tablename ~ ('^' || $1::text || '_v' || $2::int::text || '(_[0-9]+)?$')
  and coalesce(substring(t.tablename from '_v[0-9]+_([0-9]+)$')::int, 1) <> $3
order by generation desc limit 1`

// sqlOtherGenerations are those of a version that are neither $3 nor $4.
const sqlOtherGenerations = `
select coalesce(substring(t.tablename from '_v[0-9]+_([0-9]+)$')::int, 1) from pg_tables t
where t.schemaname = current_schema() and t.tablename ~ ('^' || $1::text || '_v' || $2::int::text || '(_[0-9]+)?$')
  and coalesce(substring(t.tablename from '_v[0-9]+_([0-9]+)$')::int, 1) not in ($3::int, $4::int)`

const (
	// sqlLockView keeps others from switching the view, and says which table serves.
	sqlLockView = `select table_name from views where name = $1 for update`

	// sqlBusyRebuild finds a rebuild of the view that is alive.
	sqlBusyRebuild = `
select name from checkpoints
where name ~ ('^' || $1::text || '_v[0-9]+(_[0-9]+)?$') and lease_owner like 'rebuild %' and lease_until > clock_timestamp()`

	// sqlTableOptions gives a table's storage options, which LIKE does not copy, as they are written.
	sqlTableOptions = `select coalesce(array_to_string(reloptions, ', '), '') from pg_class where oid = to_regclass(quote_ident($1))`

	sqlCreateLike     = `create table %[1]s (like %[2]s including all)`
	sqlSetOptions     = `alter table %[1]s set (%[2]s)`
	sqlDropTable      = `drop table if exists %[1]s`
	sqlDropCheckpoint = `delete from checkpoints where name = $1`
	sqlReplaceView    = `create or replace view %[1]s as select * from %[2]s`
	sqlRemakeView     = `drop view %[1]s; create view %[1]s as select * from %[2]s`
	sqlServe          = `update views set version = $2, generation = $3 where name = $1`

	// A projection is replayed from the log, so that it may lose its last moments in a crash.
	sqlAsyncCommit = `set local synchronous_commit = off`
	sqlLockTimeout = `set local lock_timeout = '2s'`
)

// sqlLease takes shard $2 of $3 of checkpoint $1 for owner $4 for $5 seconds, made when missing, unless another holds it.
// A retired one is free for the taking: its generation does not serve.
const sqlLease = `
insert into checkpoints as c (name, shard, shards, lease_owner, lease_epoch, lease_until)
values ($1, $2, $3, $4, 1, clock_timestamp() + make_interval(secs => $5))
on conflict (name, shard) do update
set lease_owner = excluded.lease_owner, lease_until = excluded.lease_until, updated_at = clock_timestamp(),
    lease_epoch = c.lease_epoch + case when c.lease_owner = excluded.lease_owner then 0 else 1 end
where c.lease_owner is null or c.lease_owner in (excluded.lease_owner, 'retired') or c.lease_until < clock_timestamp()
returning position, event_id, log_id, log_epoch, lease_epoch`

// sqlMoveCheckpoint moves shard $2 of checkpoint $1 and renews its lease for $8 seconds. It matches no row when the lease
// was lost.
const sqlMoveCheckpoint = `
update checkpoints set position = $3, event_id = $4, log_id = $5, log_epoch = $6, updated_at = clock_timestamp(),
       lease_until = clock_timestamp() + make_interval(secs => $8)
where name = $1 and shard = $2 and lease_epoch = $7`

// sqlRetire takes all shards of a checkpoint from their consumers for good and says how far the foremost had come; 0 when
// it never ran.
const sqlRetire = `
with retired as (
    update checkpoints set lease_epoch = lease_epoch + 1, lease_owner = 'retired', lease_until = 'infinity',
           updated_at = clock_timestamp()
    where name = $1 returning position
)
select coalesce(max(position), 0) from retired`

// sqlRelease frees all shards of a checkpoint for the servers' consumers.
const sqlRelease = `
update checkpoints set lease_epoch = lease_epoch + 1, lease_owner = null, lease_until = '-infinity',
       halted_at = null, halt_reason = null, paused_at = null, paused_by = null, updated_at = clock_timestamp()
where name = $1`

const (
	// sqlCheckpointOf is the serving table of view $1, or $1 itself when there is no such view.
	sqlCheckpointOf = `select coalesce((select table_name from views where name = $1), $1)`

	// sqlPause pauses checkpoint $1 for $2 and takes its lease away, unless that says that the table is kept or filled.
	sqlPause = `
update checkpoints set paused_at = coalesce(paused_at, clock_timestamp()), paused_by = coalesce(paused_by, $2),
       lease_epoch = lease_epoch + 1, lease_owner = null, lease_until = '-infinity', updated_at = clock_timestamp()
where name = $1 and (lease_owner is null or lease_owner not in ('retired', 'filling') and lease_owner not like 'rebuild %')`

	sqlResume = `
update checkpoints set paused_at = null, paused_by = null, halted_at = null, halt_reason = null, updated_at = clock_timestamp()
where name = $1 and (paused_at is not null or halted_at is not null)`
)
