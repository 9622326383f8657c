package outbox

// The statements on checkpoints, each on one row: that of a name and a shard. Every change by an owner names the lease epoch that it took the lease with and expects
// a lease that has not run out, by the database's clock; one that does not hold it matches no row.
const (
	// sqlCreate adds a checkpoint that is not there yet: name, shards, position, event id, log id, log epoch, and where that is. The rows of
	// all shards come into being together, under the lock on that of shard 0: a number of shards that was begun with is
	// never mixed with another, and a row that is lost is not made again, since what its shard had done is not known.
	sqlCreate = `
with begun as (
	insert into checkpoints (name, shards, position, event_id, log_id, log_epoch, begun_from)
	values ($1, $2, $3, nullif($4, '00000000-0000-0000-0000-000000000000'::uuid), $5, $6, $7)
	on conflict do nothing
	returning name, shards, position, event_id, log_id, log_epoch, begun_from
)
insert into checkpoints (name, shard, shards, position, event_id, log_id, log_epoch, begun_from)
select name, shard, shards, position, event_id, log_id, log_epoch, begun_from
from begun cross join generate_series(1, begun.shards - 1) as shard`

	// sqlShards tells how many shards a checkpoint was begun with, whether it has the row of one, and from where it was begun,
	// or nothing when that is not known: name, shard.
	sqlShards = `
select coalesce(max(shards), 0), coalesce(bool_or(shard = $2), false), coalesce(max(begun_from), '') from checkpoints where name = $1`

	// sqlTake takes a lease that is free, has run out, or is this owner's, unless it is paused: name, shard, owner, seconds, whether a halt is
	// undone, of how many shards, and whether it is taken although another node that wants it has fewer leases.
	sqlTake = `
update checkpoints set lease_epoch = lease_epoch + 1, lease_owner = $3,
	lease_until = clock_timestamp() + make_interval(secs => $4),
	halted_at = null, halt_reason = null, updated_at = clock_timestamp()
where name = $1 and shard = $2 and shards = $6
	and (lease_until < clock_timestamp() or lease_owner = $3) and (halted_at is null or $5)
	and paused_at is null
	and ($7 or lease_owner = $3 or not exists (
		select from nodes n
		where n.id <> $3 and n.seen_until >= clock_timestamp() and $1 || ':' || $2::smallint = any (n.wants)
			and (select count(*) from checkpoints o where o.lease_owner = n.id and o.lease_until >= clock_timestamp())
				< (select count(*) from checkpoints o where o.lease_owner = $3 and o.lease_until >= clock_timestamp())))
returning lease_epoch, position, coalesce(event_id, '00000000-0000-0000-0000-000000000000'),
	coalesce(log_id, '00000000-0000-0000-0000-000000000000'), log_epoch`

	sqlLook = `
select position, coalesce(lease_owner, ''), coalesce(halt_reason, ''), halted_at, paused_at, coalesce(paused_by, '')
from checkpoints
where name = $1 and shard = $2`

	sqlReload = `
select position, coalesce(event_id, '00000000-0000-0000-0000-000000000000'),
	coalesce(log_id, '00000000-0000-0000-0000-000000000000'), log_epoch
from checkpoints where name = $1 and shard = $2 and lease_epoch = $3 and lease_until >= clock_timestamp()`

	sqlRenew = `
update checkpoints set lease_until = clock_timestamp() + make_interval(secs => $4)
where name = $1 and shard = $2 and lease_epoch = $3 and lease_until >= clock_timestamp()`

	// sqlRelease gives a lease back: name, shard, epoch, and whether its node does not want it any more, whose id is the last.
	sqlRelease = `
with unwanted as (
	update nodes set wants = array_remove(wants, $1 || ':' || $2::smallint) where $4 and id = $5
)
update checkpoints set lease_until = '-infinity', lease_owner = null
where name = $1 and shard = $2 and lease_epoch = $3`

	sqlHalt = `
update checkpoints set lease_until = '-infinity', lease_owner = null,
	halted_at = clock_timestamp(), halt_reason = $4, updated_at = clock_timestamp()
where name = $1 and shard = $2 and lease_epoch = $3`

	// sqlAdvance moves a checkpoint and renews its lease: name, shard, lease epoch, seconds, the position before and after,
	// log id and epoch, and the event that must be at the new position, or the zero id. When it matches no row it fails by
	// a division by zero, so that the commit which follows it in the same pipeline is not executed. The epoch is the log's,
	// also where the owner has not heard yet that it was raised.
	sqlAdvance = `
with moved as (
	update checkpoints c set position = e.position, event_id = e.id, log_id = $7,
		log_epoch = greatest($8, (select epoch from log where log.id = 1)),
		lease_until = clock_timestamp() + make_interval(secs => $4), updated_at = clock_timestamp()
	from events e
	where c.name = $1 and c.shard = $2 and c.lease_epoch = $3 and c.lease_until >= clock_timestamp()
		and c.position = $5 and e.position = $6
		and ($9 = '00000000-0000-0000-0000-000000000000'::uuid or e.id = $9)
	returning e.id
)
select 1 / count(*), (select id from moved) from moved`

	sqlStamp = `
update checkpoints set log_id = $4, log_epoch = $5 where name = $1 and shard = $2 and lease_epoch = $3`

	// sqlAsync lets the transaction's commit return before it is on disk. What a crash then loses is read again from
	// the log, or delivered again: never use it for what cannot be repeated.
	sqlAsync = `select set_config('synchronous_commit', 'off', true)`

	// sqlBeginBatch begins the transaction of an Apply, which sqlAsync is true of; what follows it is the milliseconds that
	// Apply may leave it alone before Postgres ends it.
	sqlBeginBatch = `begin isolation level read committed; set local synchronous_commit = off; set local idle_in_transaction_session_timeout = `
)

// The statements of operators on checkpoints.
const (
	// sqlJudge says of each checkpoint whether its event is still in the log.
	sqlJudge = `
select c.name, c.shard, c.position, c.log_epoch, (select coalesce(max(position), 0) from events) as head,
	c.position = 0 or coalesce(e.id = c.event_id and c.log_id = l.log_id, false) as matches, coalesce(c.halt_reason, '') as halt_reason
from checkpoints c cross join log l left join events e on e.position = c.position
where l.id = 1 order by c.name, c.shard`

	// sqlRewind takes a checkpoint from its owner and moves all its shards: name, position.
	sqlRewind = `
update checkpoints c set position = $2::bigint, event_id = (select id from events where position = $2), log_id = l.log_id,
	log_epoch = l.epoch, lease_epoch = c.lease_epoch + 1, lease_owner = null, lease_until = '-infinity',
	halted_at = null, halt_reason = null, updated_at = clock_timestamp()
from log l where l.id = 1 and c.name = $1 and ($2 = 0 or exists (select from events where position = $2))`
)

// The statements on parked streams and skipped events. Those of an owner stand in one transaction with sqlAdvance, which
// fences them.
const (
	sqlParkedStreams = `
select stream, position, event_id, type, parked_at from parked_streams where checkpoint = $1 and shard = $2`

	sqlParkedChanges = `select parked_changes, parked_moved from checkpoints where name = $1 and shard = $2`

	// sqlPark lets a stream wait from an event on, or wait on after an attempt: checkpoint, shard, stream, the event's
	// position, id and type, the types that wait with it, the reason.
	sqlPark = `
insert into parked_streams as p (checkpoint, shard, stream, position, event_id, type, types, reason)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (checkpoint, shard, stream) do update set position = excluded.position, event_id = excluded.event_id,
	type = excluded.type, types = excluded.types, reason = excluded.reason, attempts = p.attempts + 1,
	tried_at = clock_timestamp(), requested_at = null, requested_action = null, requested_by = null, requested_reason = null`

	// sqlParkedMove lets a stream wait from a later event on, while the retry goes on.
	sqlParkedMove = `
update parked_streams set position = $4, event_id = $5, type = $6, requested_action = 'retry'
where checkpoint = $1 and shard = $2 and stream = $3`

	sqlUnpark = `delete from parked_streams where checkpoint = $1 and shard = $2 and stream = $3`

	// sqlSkip records an event that is passed over: checkpoint, position, id, stream, type, reason, by whom.
	sqlSkip = `
insert into skipped_events (checkpoint, position, event_id, stream, type, reason, skipped_by)
values ($1, $2, $3, $4, $5, $6, $7) on conflict (checkpoint, position) do nothing`

	// sqlCountParked comes after the move of the checkpoint, and says since when stream $3 is parked: null when it is not.
	sqlCountParked = `
update checkpoints c set parked_changes = c.parked_changes + 1, parked_moved = c.position,
	parked = (select count(*) from parked_streams p where p.checkpoint = $1 and p.shard = $2)
where c.name = $1 and c.shard = $2
returning c.parked_changes, c.parked_moved,
	(select p.parked_at from parked_streams p where p.checkpoint = $1 and p.shard = $2 and p.stream = $3)`

	sqlParkedRequests = `
select stream, requested_action, coalesce(requested_by, ''), coalesce(requested_reason, '') from parked_streams
where checkpoint = $1 and shard = $2 and requested_at is not null order by requested_at, stream limit 100`

	// sqlListParked lists parked streams: of checkpoint $1, and of stream $2, where these are not empty; $3 at most. It says
	// of each how many events wait.
	sqlListParked = `
select p.checkpoint, p.shard, p.stream, p.position, p.event_id, p.type, p.reason, p.attempts, p.parked_at, p.tried_at,
	coalesce(p.requested_action, '') as requested_action, p.requested_at, c.position as checkpoint_position,
	case when c.lease_until >= clock_timestamp() and c.lease_owner not in ('retired', 'filling') then c.lease_owner else '' end as owner,
	c.halted_at is not null as halted,
	(select count(*) from events e where e.stream = p.stream and e.position between p.position and c.position
		and (p.types = '{}' or e.type = any(p.types))) as waiting
from parked_streams p join checkpoints c on c.name = p.checkpoint and c.shard = p.shard
where ($1 = '' or p.checkpoint = $1) and ($2 = '' or p.stream = $2)
order by p.parked_at, p.checkpoint, p.stream limit $3`

	// sqlWaiting reads what waits of a stream: checkpoint, stream, the most bytes of data, how many.
	sqlWaiting = `
select e.position, e.id, e.type, e.recorded_at, left(e.data::text, $3), length(e.data::text) > $3
from parked_streams p join checkpoints c on c.name = p.checkpoint and c.shard = p.shard
	join events e on e.stream = p.stream and e.position between p.position and c.position
where p.checkpoint = $1 and p.stream = $2 and (p.types = '{}' or e.type = any(p.types))
order by e.position limit $4`

	// sqlToWorkOn chooses the parked streams of checkpoint $1, or, when that is empty, of all that have an owner at times:
	// nobody works on a table that is kept or filled. Those are looked up once, and not for each stream.
	sqlToWorkOn = `(p.checkpoint = $1 or $1 = '' and p.checkpoint <> all (array(
	select c.name from checkpoints c where c.lease_owner in ('retired', 'filling'))))`

	// sqlAsk asks the owner for something, unless it is asked already: checkpoint, stream (both empty: all), action, by whom,
	// the reason.
	sqlAsk = `
update parked_streams p set requested_at = clock_timestamp(), requested_action = $3, requested_by = $4, requested_reason = $5
where ` + sqlToWorkOn + ` and ($2 = '' or stream = $2) and requested_at is null
returning checkpoint, stream, position, attempts`

	// sqlCountAsked counts those that wait for their owner, of a checkpoint or all.
	sqlCountAsked = `select count(*) from parked_streams p where ` + sqlToWorkOn + ` and requested_at is not null`

	sqlListSkipped = `
select checkpoint, position, event_id, stream, type, reason, skipped_by, skipped_at from skipped_events
where $1 = '' or checkpoint = $1 order by skipped_at desc, position desc limit $2`
)

// The statements of nodes. They too are judged by the database's clock alone.
const (
	// sqlBeat renews a node and what it holds: id, seconds, host, process id, and of each checkpoint that it wants the name,
	// the shard and the epoch under which it is held, or 0. It answers with a row for each of these, or one without a
	// name. The node is to be dead a little sooner than its leases, so that it is none when they are shared out. Rows that
	// are locked are left to the next time: most are being moved by their owner, which renews them too.
	sqlBeat = `
with wanted as (
	select * from unnest($5::text[], $6::smallint[], $7::bigint[]) as w(name, shard, epoch)
), held as materialized (
	select c.name, c.shard from checkpoints c join wanted w on c.name = w.name and c.shard = w.shard and c.lease_epoch = w.epoch
	where c.lease_until >= clock_timestamp()
	for no key update of c skip locked
), renewed as (
	update checkpoints c set lease_until = clock_timestamp() + make_interval(secs => $2)
	from held h where c.name = h.name and c.shard = h.shard
	returning c.name, c.shard
), seen as (
	insert into nodes (id, seen_until, host, pid, wants)
	values ($1, clock_timestamp() + make_interval(secs => 0.95 * $2), $3, $4,
		array(select name || ':' || shard from wanted order by name, shard))
	on conflict (id) do update set seen_until = excluded.seen_until, wants = excluded.wants, host = excluded.host, pid = excluded.pid
), gone as (
	delete from nodes where id <> $1 and seen_until < clock_timestamp() - make_interval(secs => 2 * $2)
), fleet as (
	select count(*) as others, coalesce(min(l.leases), 0) as least
	from nodes n cross join lateral (
		select count(*) as leases from checkpoints c where c.lease_owner = n.id and c.lease_until >= clock_timestamp()) l
	where n.id <> $1 and n.seen_until >= clock_timestamp()
)
select set_config('synchronous_commit', 'off', true), fleet.others, fleet.least,
	(select coalesce(max(position), 0) from events),
	coalesce(w.name, ''), coalesce(w.shard, 0), coalesce(w.epoch, 0), r.name is not null,
	coalesce(w.epoch > 0 and (c.name is null or c.lease_epoch <> w.epoch or c.lease_until < clock_timestamp()), false),
	coalesce((c.lease_until < clock_timestamp() or c.lease_owner = $1) and c.halted_at is null and c.paused_at is null, false),
	case when c.lease_owner <> $1 and c.lease_until >= clock_timestamp() and isfinite(c.lease_until)
		then extract(epoch from c.lease_until - clock_timestamp())::float8 else 0 end,
	coalesce(c.position, 0), coalesce(c.halt_reason, ''), c.halted_at, c.paused_at, coalesce(c.paused_by, '')
from fleet left join wanted w on true
left join checkpoints c on c.name = w.name and c.shard = w.shard
left join renewed r on r.name = w.name and r.shard = w.shard`

	// sqlSurplus finds a lease of a node that another wants which has at least two fewer: id, names, shards. Which one is
	// left to chance, so that none is moved more often than others.
	sqlSurplus = `
with load as (
	select n.id, n.wants, count(c.name) as leases
	from nodes n left join checkpoints c on c.lease_owner = n.id and c.lease_until >= clock_timestamp()
	where n.seen_until >= clock_timestamp()
	group by n.id
)
select h.name, h.shard from unnest($2::text[], $3::smallint[]) as h(name, shard)
join load mine on mine.id = $1
join load other on other.id <> $1 and other.leases + 2 <= mine.leases and h.name || ':' || h.shard = any (other.wants)
order by other.leases, random() limit 1`

	// sqlLeave ends a node, and tells the others: id, channel, hint.
	sqlLeave = `with gone as (delete from nodes where id = $1) select pg_notify($2, $3)`

	sqlNotify = `select pg_notify($1, $2)`
)
