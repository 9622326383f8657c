package model

import (
	"math"

	"github.com/headrace/headrace/internal/queries"
)

// Delivery is how far a checkpoint is behind, as clients see it.
type Delivery struct{ queries.Lag }

// View is the read model's stable name, nil for what is none.
func (d Delivery) View() *string { return optional(d.Lag.View) }

// Owner is who works on it, nil when nobody does.
func (d Delivery) Owner() *string { return optional(d.Lag.Owner) }

// Reason is why it does not go on, nil when it does.
func (d Delivery) Reason() *string { return optional(d.Lag.Reason) }

// EventsBehind is as large as an Int can be at most.
func (d Delivery) EventsBehind() int { return int(min(d.Lag.EventsBehind, math.MaxInt32)) }

// MillisecondsBehind is as large as an Int can be at most.
func (d Delivery) MillisecondsBehind() int { return int(min(d.Lag.MillisecondsBehind, math.MaxInt32)) }
