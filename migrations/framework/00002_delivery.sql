-- +goose Up
-- How far each projection, policy and leased relay has come, and who owns it. The owner proves itself by the lease
-- epoch: an update that names an older one matches no row.
create table checkpoints (
    name        text collate "C" not null,
    shard       smallint    not null default 0,
    position    bigint      not null default 0,
    event_id    uuid,                             -- the event at position; null at 0
    log_id      uuid,                             -- the log the position belongs to; null at 0
    log_epoch   int         not null default 1,
    lease_epoch bigint      not null default 0,
    lease_owner text,
    lease_until timestamptz not null default '-infinity',
    halted_at   timestamptz,                      -- set when the owner stopped at an event it cannot handle
    halt_reason text,
    updated_at  timestamptz not null default now(),
    constraint checkpoints_pkey primary key (name, shard)
) with (fillfactor = 10, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);

-- Messages that are not facts: work to be done outside, at least once and in no order.
create table outbox (
    id           uuid        not null,
    available_at timestamptz not null,            -- when it is due; moved on by each failed attempt
    created_at   timestamptz not null,
    attempts     int         not null default 0,
    topic        text collate "C" not null,
    key          text collate "C" not null default '',
    payload      jsonb       not null,
    headers      jsonb       not null default '{}',
    dead_at      timestamptz,                     -- set when the attempts are used up
    last_error   text,
    constraint outbox_pkey primary key (id)
) with (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.01);
create index outbox_due on outbox (available_at) where dead_at is null;
create index outbox_dead on outbox (dead_at) where dead_at is not null;

-- Which table of a view serves. The version is the shape, which migrations make; the generation is a fill of that
-- shape, which rebuilds make. The table's name is also the name of its checkpoint.
create table views (
    name       text collate "C" not null primary key,
    version    int  not null,
    generation int  not null default 1,
    table_name text collate "C" not null generated always as
               (name || '_v' || version::text || case when generation > 1 then '_' || generation::text else '' end) stored
);

-- +goose Down
drop table views;
drop table outbox;
drop table checkpoints;
