// Package client is the Go library for programs that use an Ironring cluster.
// It talks to any peer: give it the addresses of several, and it goes on when
// one of them dies.
//
//	c, err := client.New(client.Config{Addresses: []string{"p1:7482", "p2:7482"}, TLS: tls})
//	...
//	flow, err := c.Provision(ctx, &api.ProvisionRequest{Node: "n1", Verb: api.Event_EV_DEPLOY, Args: args})
//	...
//	ev, err := c.Wait(ctx, "n1", client.Until{State: api.State_ACTIVE, After: flow.Index}, nil)
//
// Invariants:
//   - A client stays on one peer until that peer fails, so that it reads its
//     own writes; after a switch it carries the highest index it has seen and
//     the new peer must have applied that before it answers.
//   - A read is repeated at another peer freely. A write is repeated when
//     nothing was sent, or under its request id, which every write that has
//     the field gets: the cluster then does it once. A write without request
//     id whose answer was lost fails with Timeout: the outcome is unknown.
//   - Errors have a Kind, compared by errors.Is: errors.Is(err, client.NotFound).
//   - The request given to a method is never changed.
//
// It is not for the conversation between peers or with agents.
//
// A Client is safe for concurrent use; Close ends its connections. No
// goroutine outlives a call, gRPC's own excepted, which end with Close.
//
// Start with New, calls.go for the methods, and Watch and Wait.
package client
