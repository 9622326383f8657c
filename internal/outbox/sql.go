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

	sqlBeginAsync = `begin isolation level read committed; set local synchronous_commit = off`
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

// The statements on the outbox table.
const (
	// sqlClaim claims messages that are due and hides them from others for a while: limit, seconds. An attempt counts
	// before it is made, so that a message that kills its process does not come back for ever.
	sqlClaim = `
update outbox o set attempts = attempts + 1, available_at = clock_timestamp() + make_interval(secs => $2)
from (
	select id from outbox where dead_at is null and available_at <= clock_timestamp()
	order by available_at limit $1 for update skip locked
) due
where o.id = due.id
returning o.id, o.topic, o.key, o.payload::text, o.headers, o.attempts, o.created_at, o.available_at`

	// sqlNextDue tells in how many seconds the next message is due.
	sqlNextDue = `
select extract(epoch from available_at - clock_timestamp())::float8 from outbox
where dead_at is null order by available_at limit 1`

	// sqlDelivered deletes messages that are as they were claimed: one that was claimed again belongs to that claim, and
	// one that a receiver has sent back is to come again.
	sqlDelivered = `
delete from outbox o using unnest($1::uuid[], $2::timestamptz[]) as f(id, claimed)
where o.id = f.id and o.available_at = f.claimed`

	// sqlReturn takes a message back that was delivered, or buries it: id, topic, key, payload, headers, when it was
	// created, the attempt that failed, the seconds to wait, the error; then the limit of attempts. If the attempt that
	// failed is not the newest, nothing is done.
	sqlReturn = `
insert into outbox as o (id, topic, key, payload, headers, created_at, attempts, available_at, last_error, dead_at)
values ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + make_interval(secs => $8), $9,
	case when $7::int >= $10::int then clock_timestamp() end)
on conflict (id) do update set headers = excluded.headers, available_at = excluded.available_at,
	last_error = excluded.last_error, dead_at = excluded.dead_at
where o.attempts = excluded.attempts and o.dead_at is null
returning o.dead_at is not null`

	// sqlFailed returns messages for another attempt, or buries them when the attempts are used up: by message its id,
	// the attempt that failed, the seconds to wait and the error; then the limit. A message that was claimed again in
	// the meantime is left to its new claim.
	sqlFailed = `
update outbox o set last_error = f.error,
	available_at = clock_timestamp() + make_interval(secs => f.wait),
	dead_at = case when o.attempts >= $5 then clock_timestamp() end
from unnest($1::uuid[], $2::int[], $3::float8[], $4::text[]) as f(id, attempt, wait, error)
where o.id = f.id and o.attempts = f.attempt and o.dead_at is null
returning o.id, o.dead_at is not null`

	// sqlBacklog tells of the outbox and of the inbox how many messages are due and how many are dead, each counted up to
	// $1, and for how many seconds the first of them has been due.
	sqlBacklog = `
select
	(select count(*) from (select from outbox where dead_at is null and available_at <= clock_timestamp() limit $1) due),
	(select count(*) from (select from outbox where dead_at is not null limit $1) dead),
	coalesce((select greatest(0, extract(epoch from clock_timestamp() - available_at)) from outbox
		where dead_at is null order by available_at limit 1), 0)::float8,
	(select count(*) from (select from inbox where handled_at is null and dead_at is null
		and available_at <= clock_timestamp() limit $1) due),
	(select count(*) from (select from inbox where dead_at is not null and handled_at is null limit $1) dead),
	coalesce((select greatest(0, extract(epoch from clock_timestamp() - available_at)) from inbox
		where handled_at is null and dead_at is null order by available_at limit 1), 0)::float8`

	sqlListDead = `
select id, topic, key, payload::text, headers, attempts, created_at, dead_at, coalesce(last_error, '') from outbox
where dead_at is not null order by dead_at, id limit $1`

	sqlRetryDead = `
update outbox set dead_at = null, attempts = 0, available_at = clock_timestamp()
where dead_at is not null and id = any($1)`

	sqlDiscardDead = `delete from outbox where dead_at is not null and id = any($1)`
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
	coalesce(c.lease_owner, '') as owner, c.halted_at is not null as halted,
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

	// sqlAsk asks the owner for something, unless it is asked already: checkpoint, stream (both empty: all), action, by whom,
	// the reason.
	sqlAsk = `
update parked_streams set requested_at = clock_timestamp(), requested_action = $3, requested_by = $4, requested_reason = $5
where ($1 = '' or checkpoint = $1) and ($2 = '' or stream = $2) and requested_at is null
returning checkpoint, stream, position, attempts`

	sqlListSkipped = `
select checkpoint, position, event_id, stream, type, reason, skipped_by, skipped_at from skipped_events
where $1 = '' or checkpoint = $1 order by skipped_at desc, position desc limit $2`
)

// The statements on the inbox table.
const (
	// sqlInboxPut writes a message down unless its id is known: topic, id, digest, size, payload, headers, the seconds until
	// it is due, why it is dead or empty. It tells whether it did, and else the digest that is known, if it is to be seen yet.
	sqlInboxPut = `
with put as (
	insert into inbox (topic, id, digest, size, payload, headers, received_at, available_at, dead_at, last_error)
	values ($1, $2, $3, $4, $5, $6, clock_timestamp(), clock_timestamp() + make_interval(secs => $7),
		case when $8::text <> '' then clock_timestamp() end, nullif($8::text, ''))
	on conflict do nothing
	returning digest
)
select exists (select from put), (select digest from inbox where topic = $1 and id = $2)`

	// sqlInboxClaim claims messages that are due and hides them from others for a while: limit, topics, seconds. An attempt
	// counts before it is made, so that a message that kills its process does not come back for ever.
	sqlInboxClaim = `
update inbox i set attempts = attempts + 1, available_at = clock_timestamp() + make_interval(secs => $3)
from (
	select topic, id from inbox
	where handled_at is null and dead_at is null and available_at <= clock_timestamp() and topic = any($2)
	order by available_at limit $1 for update skip locked
) due
where i.topic = due.topic and i.id = due.id
returning i.topic, i.id, i.payload, i.headers, i.attempts, i.received_at`

	// sqlInboxDue tells in how many seconds the next message of some topics is due.
	sqlInboxDue = `
select extract(epoch from available_at - clock_timestamp())::float8 from inbox
where handled_at is null and dead_at is null and topic = any($1) order by available_at limit 1`

	// sqlInboxHandled notes that messages were handled, whoever else has them in hand by now.
	sqlInboxHandled = `
update inbox i set handled_at = clock_timestamp(), dead_at = null, payload = null, headers = '{}', last_error = null
from unnest($1::text[], $2::text[]) as f(topic, id)
where i.topic = f.topic and i.id = f.id and i.handled_at is null`

	// sqlInboxFailed returns messages for another attempt, or buries them: by message its topic, id, the attempt that failed,
	// the seconds to wait, the error and whether it is of no use to try again; then the limit of attempts. A message that was
	// claimed again in the meantime is left to its new claim. It names those that are dead.
	sqlInboxFailed = `
with failed as (
	update inbox i set last_error = f.error, available_at = clock_timestamp() + make_interval(secs => f.wait),
		dead_at = case when f.final or i.attempts >= $7 then clock_timestamp() end
	from unnest($1::text[], $2::text[], $3::int[], $4::float8[], $5::text[], $6::bool[]) as f(topic, id, attempt, wait, error, final)
	where i.topic = f.topic and i.id = f.id and i.attempts = f.attempt and i.dead_at is null and i.handled_at is null
	returning i.topic, i.id, i.last_error, i.dead_at
)
select topic, id, last_error from failed where dead_at is not null`

	sqlInboxColumns = `
select topic, id, case when handled_at is not null then 'handled' when dead_at is not null then 'dead' else 'waiting' end,
	attempts, received_at, available_at, dead_at, handled_at, size, coalesce(last_error, ''), headers, `

	// sqlInboxList lists the messages in a state, of one topic or, empty, of all.
	sqlInboxList = sqlInboxColumns + `null::bytea from inbox
where case $1::text when 'handled' then handled_at is not null when 'dead' then dead_at is not null and handled_at is null
	else dead_at is null and handled_at is null end and $2 in ('', topic)
order by received_at, topic, id limit $3`

	sqlInboxShow = sqlInboxColumns + `payload from inbox where topic = $1 and id = $2`

	sqlInboxRetry = `
update inbox set dead_at = null, attempts = 0, available_at = clock_timestamp()
where topic = $1 and id = any($2) and dead_at is not null and handled_at is null and octet_length(payload) = size`

	sqlInboxDiscard = `
update inbox set handled_at = clock_timestamp(), payload = null, headers = '{}', last_error = 'discarded: ' || last_error
where topic = $1 and id = any($2) and dead_at is not null and handled_at is null`

	// sqlInboxForget deletes some of the messages that were handled so many seconds ago.
	sqlInboxForget = `
delete from inbox where (topic, id) in (
	select topic, id from inbox where handled_at < clock_timestamp() - make_interval(secs => $1)
	order by handled_at limit $2 for update skip locked
)`
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
