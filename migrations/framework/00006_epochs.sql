-- +goose Up
-- When the log's epoch was raised, and why: after the database was restored, or a standby was promoted. What an older epoch
-- says of positions beyond the one that stands here is of a history that this log no longer has.
create table epochs (
    epoch                      int         not null primary key,
    raised_at                  timestamptz not null default clock_timestamp(),
    position                   bigint      not null,  -- the head then
    event_id                   uuid,                  -- the event there; null at 0
    previous_epoch             int         not null,
    system_identifier          bigint      not null,
    previous_system_identifier bigint      not null,
    timeline                   int         not null,
    previous_timeline          int         not null,
    reason                     text        not null
);

-- Whoever may append must be able to raise.
-- +goose StatementBegin
do $$
declare who text;
begin
    for who in
        select distinct case grantee when 'PUBLIC' then 'public' else quote_ident(grantee) end
        from information_schema.role_table_grants
        where table_schema = current_schema() and table_name = 'log' and privilege_type = 'UPDATE'
    loop
        execute format('grant select, insert on epochs to %s', who);
    end loop;
end
$$;
-- +goose StatementEnd

-- +goose Down
drop table epochs;
