-- +goose Up
-- Users, one row each.
create table user_v1 (
    version       bigint      not null,
    position      bigint      not null,
    registered_at timestamptz not null,
    updated_at    timestamptz not null,
    id            text collate "C" not null primary key,
    email         text collate "C" not null,
    email_key     text collate "C" not null, -- trimmed and lower-cased, as users look for it
    name          text collate "C" not null,
    status        text collate "C" not null
) with (autovacuum_vacuum_scale_factor = 0.05);
create index on user_v1 (registered_at, id);
create index on user_v1 (name, id);
create index on user_v1 (status, registered_at, id);
create index on user_v1 (email_key);

-- The name is a reserved word and needs its quotes: user without them is the role that is connected.
create view "user" as select * from user_v1;
insert into views (name, version) values ('user', 1);

-- +goose Down
-- +goose StatementBegin
do $$
declare generation text;
begin
    drop view "user";
    for generation in select tablename from pg_tables
        where schemaname = current_schema() and tablename ~ '^user_v1(_[0-9]+)?$'
    loop
        execute format('drop table %I', generation);
    end loop;
    delete from checkpoints where name ~ '^user_v1(_[0-9]+)?$';
    delete from views where name = 'user';
end
$$;
-- +goose StatementEnd
