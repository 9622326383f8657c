package graph

import (
	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries/activityview"
	"github.com/headrace/headrace/internal/queries/cartview"
	"github.com/headrace/headrace/internal/queries/fulfilmentview"
	"github.com/headrace/headrace/internal/queries/orderview"
	"github.com/headrace/headrace/internal/queries/userview"
)

// newRules is the table. Each root field and each type of object has a line here; what has none is denied, and a test that
// walks the schema names it.
func newRules() rules {
	return rules{
		fields: map[string]fieldRule{
			"Query.node":  byObject,
			"Query.nodes": byObject,

			"Query.history": byObject,

			"Query.cart":                byObject,
			"Query.carts":               signedIn,
			"Mutation.openCart":         byDecider,
			"Mutation.addItem":          byDecider,
			"Mutation.changeQuantity":   byDecider,
			"Mutation.removeItem":       byDecider,
			"Mutation.checkOutCart":     byDecider,
			"Mutation.abandonCart":      byDecider,
			"Subscription.cartChanged":  signedIn,
			"Subscription.cartsChanged": signedIn,

			"Query.order":                byObject,
			"Query.orders":               signedIn,
			"Mutation.payOrder":          byDecider,
			"Mutation.shipOrder":         byDecider,
			"Mutation.deliverOrder":      byDecider,
			"Mutation.cancelOrder":       byDecider,
			"Mutation.refundOrder":       byDecider,
			"Subscription.orderChanged":  signedIn,
			"Subscription.ordersChanged": signedIn,

			"Query.fulfilment": byObject,

			"Query.user":               byObject,
			"Query.users":              signedIn,
			"Mutation.registerUser":    byDecider,
			"Mutation.renameUser":      byDecider,
			"Mutation.changeEmail":     byDecider,
			"Mutation.deactivateUser":  byDecider,
			"Subscription.userChanged": signedIn,

			"Query.activity":              signedIn,
			"Subscription.activityLogged": signedIn,

			"Query.event":         staffOnly,
			"Query.events":        staffOnly,
			"Subscription.events": staffOnly,

			// Names of processes, and why something stands still: for who looks after the server.
			"Query.deliveries": staffOnly,
		},
		objects: map[string]objectRule{
			cartView:       byAccess(cartview.Access()),
			orderView:      byAccess(orderview.Access()),
			userView:       byAccess(userview.Access()),
			fulfilmentView: byAccess(fulfilmentview.Access()),
			activityView:   byAccess(activityview.Access()),
			// The raw log shows everything of everybody, metadata included.
			eventKind: {see: func(who identity.Identity, object any) bool {
				_, ok := object.(*model.Event)
				return ok && who.Has(identity.Staff)
			}},
		},
	}
}
