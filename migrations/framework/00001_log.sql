-- +goose Up
-- The log. Every event has a position: 1, 2, 3, ... dense, in commit order, handed out under the lock on the log row.
-- Wide columns come last and eight-byte columns first, so that a row carries no padding.
create table events (
    position       bigint      not null,
    version        bigint      not null,
    recorded_at    timestamptz not null,
    id             uuid        not null,
    stream         text collate "C" not null,
    type           text collate "C" not null,
    schema_version smallint    not null,
    data           jsonb       not null,
    metadata       jsonb       not null,
    constraint events_pkey primary key (position),
    constraint events_stream_version_key unique (stream, version)
) with (fillfactor = 100, autovacuum_freeze_min_age = 0);

-- +goose StatementBegin
do $$
begin
    alter table events alter column data set compression lz4;
    alter table events alter column metadata set compression lz4;
exception when feature_not_supported then
    raise notice 'this Postgres was built without lz4; events are compressed with pglz';
end
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the log is insert-only: % on % is refused', lower(tg_op), tg_table_name
        using errcode = 'restrict_violation',
              hint = 'append an event that corrects what was recorded';
end
$$;
-- +goose StatementEnd

create trigger events_insert_only before update or delete or truncate on events
    for each statement execute function refuse_change();

-- One row: the lock under which positions are handed out, and the identity of this log.
create table log (
    id                smallint primary key default 1 check (id = 1),
    log_id            uuid     not null default gen_random_uuid(),
    epoch             int      not null default 1,
    system_identifier bigint   not null default 0,
    timeline          int      not null default 0,
    created_at        timestamptz not null default now()
);
insert into log default values;

-- What commands with an id were answered, so that a repeat has one effect and the same receipt.
create table receipts (
    recorded_at timestamptz not null,
    position    bigint      not null,
    version     bigint      not null,
    event_id    uuid        not null,
    epoch       int         not null,
    actor       text collate "C" not null,
    command_id  text collate "C" not null,
    stream      text collate "C" not null,
    hash        bytea       not null,
    constraint receipts_pkey primary key (actor, command_id)
);
create index receipts_recorded_at on receipts (recorded_at);

-- Unique keys held by streams: the rule that a stream cannot guard alone.
create table claims (
    key    text collate "C" not null,
    stream text collate "C" not null,
    constraint claims_pkey primary key (key)
);
create index claims_stream on claims (stream);

-- +goose Down
drop table claims;
drop table receipts;
drop table log;
drop table events;
drop function refuse_change();
