package eventstore

import "strings"

// The statements of an append. Each runs right after sqlLock in the same implicit transaction. They are two statements
// on purpose: under READ COMMITTED a statement that waits for the lock has already taken its snapshot.
//
// A plan is made once, without regard to the parameters (force_generic_plan): planning would cost a small batch more
// than inserting it. Sequential scans are off, since a plan that was made while the log was small would scan it when it
// is large. Just-in-time compilation is off, since the costs that discourage a kind of plan look like expensive ones. The
// settings end with the transaction, so they are safe behind a transaction pooler.
const (
	//
	// Both lock statements fail, by a division by zero, when the log has another epoch than the caller knows, $1: what the
	// batch was decided on may be of another history. As they fail, nothing that follows in the pipeline is executed.
	sqlLock = `
select log_id, epoch,
	set_config('plan_cache_mode', 'force_generic_plan', true),
	set_config('enable_seqscan', 'off', true),
	set_config('jit', 'off', true),
	1 / ((epoch = $1)::int)
from log where id = 1 for no key update`

	// sqlLockFull prepares for sqlAppendFull, whose joins between small sets must not become nested loops.
	sqlLockFull = `
select log_id, epoch,
	set_config('plan_cache_mode', 'force_generic_plan', true),
	set_config('enable_seqscan', 'off', true),
	set_config('enable_nestloop', 'off', true),
	set_config('jit', 'off', true),
	1 / ((epoch = $1)::int)
from log where id = 1 for no key update`

	sqlHead = `
with head as materialized (
	select coalesce(l.position, 0) as position,
		coalesce(l.id, '00000000-0000-0000-0000-000000000000') as id,
		greatest(clock_timestamp(), l.recorded_at) as now
	from (values (1)) one
	left join lateral (select position, id, recorded_at from events order by position desc limit 1) l on true
)`

	// sqlAppendOne appends one event: id, stream, type, schema version, data, metadata, expected version. It returns no
	// row when the stream is not at the expected version.
	sqlAppendOne = sqlHead + `
insert into events (position, version, recorded_at, id, stream, type, schema_version, data, metadata)
select head.position + 1, current.version + 1, head.now, $1::uuid, $2::text, $3::text, $4::smallint, $5::jsonb, $6::jsonb
from head cross join lateral (
	select coalesce((select version from events where stream = $2::text order by version desc limit 1), 0) as version
) current
where case $7::bigint when -2 then true when -1 then current.version > 0 else current.version = $7::bigint end
returning position, version, id`

	// sqlAppendMany appends the events of several requests, each of which has one stream that no other has, when all
	// streams are at their expected versions, and otherwise none. So versions come from the caller and positions from the
	// order of the rows: nothing is sorted or joined. By event: the event and its version; by request: the stream and its
	// expected version.
	sqlAppendMany = sqlHead + `
insert into events (position, version, recorded_at, id, stream, type, schema_version, data, metadata)
select head.position + e.n, e.version, head.now, e.id, e.stream, e.type, e.schema_version, e.data, e.metadata
from unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::jsonb[], $6::jsonb[], $7::bigint[])
	with ordinality as e(id, stream, type, schema_version, data, metadata, version, n)
cross join head
where not exists (
	select from unnest($8::text[], $9::bigint[]) as r(stream, expected)
	where r.expected <> coalesce((select version from events where stream = r.stream order by version desc limit 1), 0)
)
returning position`

	// sqlAppendJudged appends the events of those requests that are at their expected versions. Each request has one stream
	// that no other has; by event come the stream, its expected version, the event's number within the request, and the
	// event. It returns what it inserted; the events of a request are judged alike, so they are all there or none.
	sqlAppendJudged = sqlHead + `
insert into events (position, version, recorded_at, id, stream, type, schema_version, data, metadata)
select head.position + row_number() over (order by e.n), current.version + e.step, head.now,
	e.id, e.stream, e.type, e.schema_version, e.data, e.metadata
from unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::jsonb[], $6::jsonb[], $7::bigint[], $8::int[])
	with ordinality as e(id, stream, type, schema_version, data, metadata, expected, step, n)
cross join head cross join lateral (
	select coalesce((select version from events where stream = e.stream order by version desc limit 1), 0) as version
) current
where case e.expected when -2 then true when -1 then current.version > 0 else current.version = e.expected end
returning position, version, id`

	// sqlAppendFull appends requests that hold command ids, claims, messages or several streams. It judges each
	// request once and returns a verdict for each: 0 accepted, 1 the command id is known, 2 a stream is not at its
	// expected version, 3 a claimed key is taken, 4 a released key is not held.
	sqlAppendFull = sqlHead + `,
request as materialized (
	select r.n, r.actor, r.command_id, r.hash, r.stream, r.own_part, r.own_events, r.events, r.last_id,
		seen.command_id is not null as seen
	from unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::int[], $6::int[], $7::int[], $8::uuid[])
		with ordinality as r(actor, command_id, hash, stream, own_part, own_events, events, last_id, n)
	left join lateral (
		select command_id from receipts where actor = r.actor and command_id = r.command_id and r.command_id <> '' limit 1
	) seen on true
),
part as materialized (
	select p.n, p.request, p.stream, current.version,
		case p.expected when -2 then true when -1 then current.version > 0 else current.version = p.expected end as met
	from unnest($9::int[], $10::text[], $11::bigint[]) with ordinality as p(request, stream, expected, n)
	cross join lateral (
		select coalesce((select version from events where stream = p.stream order by version desc limit 1), 0) as version
	) current
),
conflict as materialized (
	select distinct on (request) request, stream, version from part where not met order by request, n
),
claim as materialized (
	select k.request, k.key, r.stream, held.stream as owner
	from unnest($12::int[], $13::text[]) as k(request, key) join request r on r.n = k.request
	left join lateral (select stream from claims where key = k.key limit 1) held on true
),
release as materialized (
	select k.request, k.key, r.stream, held.stream as owner
	from unnest($14::int[], $15::text[]) as k(request, key) join request r on r.n = k.request
	left join lateral (select stream from claims where key = k.key limit 1) held on true
),
taken as materialized (
	select distinct on (request) request, key, owner from claim where owner <> stream order by request, key
),
unheld as materialized (
	select distinct on (request) request, key, coalesce(owner, '') as owner
	from release where owner is distinct from stream order by request, key
),
verdict as materialized (
	select r.n, r.actor, r.command_id, r.hash, r.stream, r.events, r.last_id, own.version + r.own_events as version,
		case when r.seen then 1 when c.request is not null then 2 when t.request is not null then 3
			when u.request is not null then 4 else 0 end as verdict,
		c.stream as conflict_stream, c.version as conflict_version,
		coalesce(t.key, u.key) as key, coalesce(t.owner, u.owner) as owner
	from request r join part own on own.n = r.own_part
	left join conflict c on c.request = r.n left join taken t on t.request = r.n left join unheld u on u.request = r.n
),
accepted as materialized (
	select v.n, v.actor, v.command_id, v.hash, v.stream, v.events, v.version, head.now,
		case when v.events = 0 then head.id else v.last_id end as last_id,
		head.position + sum(v.events) over (order by v.n) as position
	from verdict v cross join head where v.verdict = 0
),
written as (
	insert into events (position, version, recorded_at, id, stream, type, schema_version, data, metadata)
	select a.position - a.events + e.number, p.version + e.step, a.now,
		e.id, p.stream, e.type, e.schema_version, e.data, e.metadata
	from unnest($16::uuid[], $17::int[], $18::text[], $19::smallint[], $20::jsonb[], $21::jsonb[], $22::int[], $23::int[])
		with ordinality as e(id, part, type, schema_version, data, metadata, step, number, n)
	join part p on p.n = e.part join accepted a on a.n = p.request
	order by e.n
),
claimed as (
	insert into claims (key, stream)
	select c.key, c.stream from claim c join accepted a on a.n = c.request where c.owner is null
),
released as (
	delete from claims where key = any (array(select r.key from release r join accepted a on a.n = r.request))
),
queued as (
	insert into outbox (id, available_at, created_at, topic, key, payload, headers)
	select m.id, a.now + make_interval(secs => m.delay), a.now, m.topic, m.key, m.payload, m.headers
	from unnest($24::int[], $25::uuid[], $26::float8[], $27::text[], $28::text[], $29::jsonb[], $30::jsonb[])
		as m(request, id, delay, topic, key, payload, headers)
	join accepted a on a.n = m.request
),
remembered as (
	insert into receipts (recorded_at, position, version, event_id, epoch, actor, command_id, stream, hash)
	select a.now, a.position, a.version, a.last_id, log.epoch, a.actor, a.command_id, a.stream, a.hash
	from accepted a cross join log where a.command_id <> ''
)
select v.n, v.verdict::bigint, v.version, coalesce(a.position, 0)::bigint, coalesce(a.last_id, head.id),
	coalesce(v.conflict_stream, ''), coalesce(v.conflict_version, 0), coalesce(v.key, ''), coalesce(v.owner, '')
from verdict v cross join head left join accepted a on a.n = v.n
order by v.n`

	// sqlGuard fails the transaction of an AppendIn, by a division by zero, when its request was not accepted: the commit
	// that follows in the pipeline is then skipped. It looks for the request's last event, or for its receipt.
	sqlGuard = `
select 1 / (
	(select count(*) from (select id from events order by position desc limit 1) newest where id = $1::uuid)
	+ (select count(*) from receipts where actor = $2::text and command_id = $3::text and xmin = pg_current_xact_id()::xid)
)::int`

	// sqlSettle fixes the isolation level, which cannot change after a query, and bounds what a caller may hold up.
	sqlSettle = `
select set_config('lock_timeout', $1::text, true), set_config('idle_in_transaction_session_timeout', $2::text, true)`

	// sqlIsolation finds no row in a database that is not migrated.
	sqlIsolation = `select current_setting('default_transaction_isolation') from log where id = 1`

	// sqlProbe tells which process works, and whether it knows the statement by the name that the client gave it.
	sqlProbe = `select pg_backend_pid(), exists (select from pg_prepared_statements where name = $1::text)`

	sqlReceipt = `
select r.stream, r.version, r.position, r.event_id, r.epoch, log.log_id, r.hash
from receipts r cross join log where r.actor = $1 and r.command_id = $2`

	// sqlForget deletes a bounded number of receipts that are older than they need to be, the oldest first. By ctid it
	// touches just those: a join on the key was planned as a scan of the whole table.
	sqlForget = `
delete from receipts where ctid = any (array(
	select ctid from receipts where recorded_at < now() - make_interval(secs => $1) order by recorded_at limit $2))`

	sqlColumns = `position, version, recorded_at, id, stream, type, schema_version, data::text, metadata::text`

	sqlReadStream = `select ` + sqlColumns + ` from events
where stream = $1 and version > $2 order by version limit $3`

	sqlReadStreamBackward = `select ` + sqlColumns + ` from events
where stream = $1 and version < $2 order by version desc limit $3`

	sqlReadLog = `select ` + sqlColumns + ` from events
where position > $1 and position <= $2 order by position limit $3`

	// The filtered reads look at a window of positions, so that a sparse filter reports progress.
	sqlReadLogTypes = `select ` + sqlColumns + ` from events
where position > $1 and position <= $2 and type = any($4) order by position limit $3`

	// sqlShard is Shard(stream, $5).
	sqlShard = `(('x' || encode(substr(sha256(convert_to(stream, 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint % $5::int)`

	// sqlReadLogShard reads the events of types $4, none for all, that belong to shard $6 of $5.
	sqlReadLogShard = `select ` + sqlColumns + ` from events
where position > $1 and position <= $2 and (cardinality($4::text[]) = 0 or type = any($4)) and ` + sqlShard + ` = $6::int
order by position limit $3`

	// sqlReadLogStream goes on in a stream after a position. The index of a stream is by version, so the version is looked
	// for first: that of the event at the position, where a page usually ended, or else by halving, since positions grow
	// with versions. Reading from the start instead would make the pages of a long stream dearer from one to the next.
	sqlReadLogStream = `
with recursive seek (low, high) as (
	select 0::bigint, case when $1::bigint = 0 then 0
		else coalesce((select version from events where stream = $4::text order by version desc limit 1), 0) end
	union all
	select case when probe.position <= $1 then middle.version else low end,
		case when probe.position <= $1 then high else middle.version - 1 end
	from seek
	cross join lateral (select (low + high + 1) / 2 as version) middle
	cross join lateral (select position from events where stream = $4 and version = middle.version limit 1) probe
	where low < high
)
select ` + sqlColumns + ` from events
where stream = $4 and position <= $2 and (cardinality($5::text[]) = 0 or type = any($5))
	and version > coalesce((select version from events where position = $1 and stream = $4), (select max(low) from seek))
order by version limit $3`

	sqlLastOf = `select ` + sqlColumns + ` from events
where type = any($1) and position > $2 and position <= $3 order by position desc limit 1`

	sqlEventAt = `select ` + sqlColumns + ` from events where position = $1`

	sqlEventsAt = `select ` + sqlColumns + ` from events where position = any($1::bigint[]) order by position`

	sqlLogHead = `
select log.log_id, log.epoch, coalesce(e.position, 0), coalesce(e.id, '00000000-0000-0000-0000-000000000000')
from log left join lateral (select position, id from events order by position desc limit 1) e on true
where log.id = 1`

	// sqlSnapshot is sqlLogHead, and when the next event would be recorded.
	sqlSnapshot = `
select log.log_id, log.epoch, coalesce(e.position, 0), coalesce(e.id, '00000000-0000-0000-0000-000000000000'),
	greatest(clock_timestamp(), e.recorded_at)
from log left join lateral (select position, id, recorded_at from events order by position desc limit 1) e on true
where log.id = 1`

	// sqlPositionAt finds the last position recorded by time $1 by halving: positions are dense and times do not go back, so
	// that the primary key serves and appends pay for no index on the time. The answer is within low..high; offset 0 keeps
	// the look at the middle from being done twice.
	sqlPositionAt = `
with recursive search(low, high) as (
	select 0::bigint, coalesce((select max(position) from events), 0)
	union all
	select case when past then middle else low end, case when past then high else middle - 1 end
	from (
		select low, high, (low + high + 1) / 2 as middle,
			(select e.recorded_at <= $1::timestamptz from events e where e.position = (s.low + s.high + 1) / 2) as past
		from search s where low < high offset 0
	) step
)
select low, greatest(statement_timestamp(), (select recorded_at from events order by position desc limit 1))
from search where low = high`

	// sqlJudgeClaims finds the first of keys $2 that another stream than $1 holds, or else the first of keys $3 that this
	// stream does not hold, and who does.
	sqlJudgeClaims = `
select key, owner from (
	select 1 as kind, k.key, held.stream as owner
	from unnest($2::text[]) as k(key) join claims held on held.key = k.key where held.stream <> $1::text
	union all
	select 2, k.key, coalesce(held.stream, '')
	from unnest($3::text[]) as k(key) left join claims held on held.key = k.key where held.stream is distinct from $1::text
) refused order by kind, key limit 1`

	sqlHeadAndEvent = `
select coalesce(max(position), 0), (select id from events where position = $1) from events`

	sqlStreamVersion = `select coalesce((select version from events where stream = $1 order by version desc limit 1), 0)`

	sqlEventID = `select id from events where position = $1`
)

// The statements on which history the log is of.
const (
	// sqlTimeline begins the names of files of the write-ahead log, and is right from the moment of a promotion on, other
	// than that of the last checkpoint.
	sqlTimeline = `left(pg_walfile_name(pg_current_wal_lsn()), 8)`

	// sqlHere stands in the lock statements for sqlEpoch where Postgres tells its timeline: they fail too when that is another
	// than the caller knows, $2. A pooler may have changed the server behind a connection.
	sqlHere  = `((epoch = $1)::int * (` + sqlTimeline + ` = $2::text)::int)`
	sqlEpoch = `((epoch = $1)::int)`

	// sqlNewest is which event is at the head, and which at position $1, if any.
	sqlNewest = `coalesce(h.position, 0), coalesce(h.id, '00000000-0000-0000-0000-000000000000'), ` + sqlThere
	sqlThere  = `coalesce((select id from events where position = $1::bigint), '00000000-0000-0000-0000-000000000000')`
	sqlAtHead = `left join lateral (select position, id from events order by position desc limit 1) h on true`

	// sqlHistory is what the log's row says of its history, and what the server says. A standby says timeline 0.
	sqlHistory = `
select l.log_id, l.epoch, l.system_identifier, l.timeline, c.system_identifier,
	case when pg_is_in_recovery() then 0 else ('x' || ` + sqlTimeline + `)::bit(32)::int end, ` + sqlNewest + `
from log l cross join pg_control_system() c ` + sqlAtHead + ` where l.id = 1`

	sqlHistoryBlind = `
select l.log_id, l.epoch, not pg_is_in_recovery(), ` + sqlNewest + ` from log l ` + sqlAtHead + ` where l.id = 1`

	sqlHistoryLock = `
select log_id, epoch, system_identifier, timeline, ` + sqlThere + ` from log where id = 1 for no key update`

	sqlAdopt = `update log set system_identifier = $1, timeline = $2 where id = 1`

	// sqlRaise raises the epoch and says since when: system identifier and timeline, those from before, and why. The new
	// epoch is the seconds since 2025, so that two restores of one backup do not come to the same.
	sqlRaise = `
with head as (
	select coalesce(l.position, 0) as position, l.id
	from (values (1)) one left join lateral (select position, id from events order by position desc limit 1) l on true
), raised as (
	update log set system_identifier = $1, timeline = $2,
		epoch = greatest(epoch + 1, extract(epoch from clock_timestamp() - timestamptz '2025-01-01 00:00:00Z')::int)
	where id = 1 returning epoch
), noted as (
	insert into epochs (epoch, position, event_id, previous_epoch, system_identifier, timeline,
		previous_system_identifier, previous_timeline, reason)
	select r.epoch, head.position, head.id, log.epoch, $1, $2, $3, $4, $5
	from raised r cross join head cross join log
)
select raised.epoch, head.position from raised cross join head`

	// sqlCheckMark says how far all raises since epoch $1 kept the log, $2 when there was none, and whether that is an epoch of
	// this log: the present one, or one that a raise ended.
	sqlCheckMark = `
select log_id, epoch, (select coalesce(max(position), 0) from events),
	coalesce((select min(position) from epochs where epochs.epoch > $1::int), $2::bigint),
	epoch = $1::int or exists (select from epochs where previous_epoch = $1::int)
from log where id = 1`

	sqlCheckToken = `
select log_id, epoch, (select coalesce(max(position), 0) from events), (select id from events where position = $1)
from log where id = 1`
)

// The statements of an examination.
const (
	sqlExamine = `
select l.log_id, l.epoch, case when l.system_identifier < 0 then (l.system_identifier + 18446744073709551616)::text
		else l.system_identifier::text end,
	l.timeline, pg_is_in_recovery(), coalesce(e.position, 0),
	coalesce(extract(epoch from e.recorded_at - clock_timestamp()), 0)::float8
from log l left join lateral (select position, recorded_at from events order by position desc limit 1) e on true
where l.id = 1`

	// sqlDense counts what is missing among the positions after $1 and up to $2, and among versions of streams there.
	sqlDense = `
select $2::bigint - $1::bigint - count(*), coalesce(sum(version - previous - 1), 0)::bigint
from (
	select version, lag(version, 1, case when $1::bigint = 0 then 0 else version - 1 end)
		over (partition by stream order by position) as previous
	from events where position > $1 and position <= $2
) e`

	sqlRaises = `
select epoch, previous_epoch, raised_at, position, reason from epochs order by epoch desc limit 20`
)

// lockHere makes a lock statement compare the timeline too.
func lockHere(lock string) string { return strings.Replace(lock, sqlEpoch, sqlHere, 1) }
