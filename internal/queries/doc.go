// Package queries turns the log into views, and says how far they have come.
package queries
