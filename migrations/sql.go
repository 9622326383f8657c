package migrations

// tableExistsSQL asks whether a table of the name $1 is to be seen on the search path.
const tableExistsSQL = `select to_regclass($1) is not null`

// What is applied of each line. Version 0 is goose's own mark that the table is set up.
const (
	frameworkAppliedSQL   = `select version_id, tstamp from headrace_migrations where is_applied and version_id > 0`
	applicationAppliedSQL = `select version_id, tstamp from application_migrations where is_applied and version_id > 0`
)
