package model

import (
	"github.com/headrace/headrace/internal/queries/cartview"
	"github.com/headrace/headrace/internal/queries/orderview"
)

// ListChangeKind is what a message of a live list says.
type ListChangeKind string

const (
	ListSnapshot    ListChangeKind = "SNAPSHOT"     // a part of the list; more follows
	ListSnapshotEnd ListChangeKind = "SNAPSHOT_END" // the last part
	ListChanged     ListChangeKind = "CHANGE"
)

// ListChange is a message of a live list.
type ListChange[R any] struct {
	Kind      ListChangeKind
	Rows      []*R     // in the list, as they are now; shared between subscribers
	Removed   []string // ids of rows that are not in the list any more
	Unchanged []string // ids of rows in the list that the client has as they are
	Position  *int64   // everything up to here has been told; nil until the snapshot is complete
}

// The messages by the names of the schema.
type (
	CartsChange  = ListChange[cartview.Cart]
	OrdersChange = ListChange[orderview.Order]
)
