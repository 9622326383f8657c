-- +goose Up
-- What users did, one line for each event. Lines are never changed.
create table activity_v1 (
    position    bigint      not null primary key,
    recorded_at timestamptz not null,
    user_id     text collate "C" not null,
    stream      text collate "C" not null,
    type        text collate "C" not null,
    actor       text collate "C" not null,
    summary     text        not null
);
create index on activity_v1 (user_id, position);
create index on activity_v1 (stream, position);

create view activity as select * from activity_v1;
insert into views (name, version) values ('activity', 1);

-- +goose Down
-- +goose StatementBegin
do $$
declare generation text;
begin
    drop view "activity";
    for generation in select tablename from pg_tables
        where schemaname = current_schema() and tablename ~ '^activity_v1(_[0-9]+)?$'
    loop
        execute format('drop table %I', generation);
    end loop;
    delete from checkpoints where name ~ '^activity_v1(_[0-9]+)?$';
    delete from views where name = 'activity';
end
$$;
-- +goose StatementEnd
