package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// Standbys are the replicas that queries may be answered from.
type Standbys struct {
	ReplicaURLs   []string      `name:"database-replica-url" env:"DATABASE_REPLICA_URL" sep:" " placeholder:"URL" help:"Streaming standby of the database to answer queries of views from, where it has what they ask for. Several are separated by spaces."`
	ReplicaMaxLag time.Duration `name:"replica-max-lag" env:"REPLICA_MAX_LAG" default:"5s" help:"How old the state of a replica may be to answer queries."`
}

// Validate is called by kong when all flags and variables are read.
func (s *Standbys) Validate() error {
	for _, address := range s.ReplicaURLs {
		if err := validURL("DATABASE_REPLICA_URL (--database-replica-url)", address); err != nil {
			return err
		}
	}
	if len(s.ReplicaURLs) > 0 && s.ReplicaMaxLag < 100*time.Millisecond {
		return fmt.Errorf("REPLICA_MAX_LAG (--replica-max-lag) is %v: give 100ms or more, such as 5s", s.ReplicaMaxLag)
	}
	return nil
}

// openReplicas returns the replicas, or nil when there are none. They need not be reachable: they are looked at when they
// run. Each has as many connections at most as there are for reads of the primary.
func (c *Config) openReplicas(primary *pgxpool.Pool, log *slog.Logger) (*queries.Replicas, error) {
	var all []queries.Replica
	for _, address := range c.ReplicaURLs {
		config, err := pgxpool.ParseConfig(address)
		if err != nil {
			return nil, &exitError{exitUsage, errors.New("DATABASE_REPLICA_URL (--database-replica-url) cannot be read")}
		}
		c.Database.tune(config)
		name := net.JoinHostPort(config.ConnConfig.Host, fmt.Sprint(config.ConnConfig.Port))
		all = append(all, queries.Replica{Name: name, Open: func(ctx context.Context) (*pgxpool.Pool, error) {
			if _, err := eventstore.FitPooler(ctx, config.ConnConfig); err != nil {
				return nil, err
			}
			return openReads(context.WithoutCancel(ctx), config, connectionsForReads(c.MaxConnections), c.StatementTimeout)
		}})
	}
	if len(all) == 0 {
		return nil, nil //nolint:nilnil // none is what most have
	}
	return queries.NewReplicas(primary, all, queries.ReplicasConfig{MaxLag: c.ReplicaMaxLag, Logger: log}), nil
}
