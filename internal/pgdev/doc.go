// Package pgdev runs a private Postgres where nothing is set up: for development, for tests and for benchmarks.
//
// It finds the server's programs on the machine, or downloads them, makes a cluster in a folder of its own, and runs
// postgres as a child of the calling process. As root it runs as the user postgres, which it makes when missing.
//
// What it promises: a folder has one owner at a time, the process that holds its lock. A second process that opens the
// same folder attaches to the running server. The server ends with its owner, however that ends; what remains of a
// killed owner, a dying server included, is waited for and then started again. A cluster is never started while
// anything of its former server still runs.
//
// What it does not: it is no way to run Postgres in production. Whoever may enter the folder of the socket is a
// superuser of the cluster; the folder is closed to other users. It runs on Linux, macOS and the BSDs.
package pgdev
