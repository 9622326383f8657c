-- +goose Up
-- How orders are fulfilled, one row for each process.
create table fulfilment_v1 (
    version           bigint      not null,
    position          bigint      not null,
    started_at        timestamptz not null,
    updated_at        timestamptz not null,
    pay_by            timestamptz,
    ship_by           timestamptz,
    id                text collate "C" not null primary key,
    owner_id          text collate "C" not null,
    status            text collate "C" not null,
    payment_reference text collate "C",
    tracking_code     text collate "C",
    reason            text collate "C",
    steps             jsonb       not null
) with (autovacuum_vacuum_scale_factor = 0.05);

create view fulfilment as select * from fulfilment_v1;
insert into views (name, version) values ('fulfilment', 1);

-- +goose Down
-- +goose StatementBegin
do $$
declare generation text;
begin
    drop view fulfilment;
    for generation in select tablename from pg_tables
        where schemaname = current_schema() and tablename ~ '^fulfilment_v1(_[0-9]+)?$'
    loop
        execute format('drop table %I', generation);
    end loop;
    delete from checkpoints where name ~ '^fulfilment_v1(_[0-9]+)?$';
    delete from views where name = 'fulfilment';
end
$$;
-- +goose StatementEnd
